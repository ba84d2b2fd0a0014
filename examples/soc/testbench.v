// Plays the processor: loads the memory, writes the registers, rings the doorbell, waits for the interrupt, and compares
// the whole memory, except the completion records, with what the exact model left there.

`timescale 1ns / 1ps

`ifndef MEMORY_BYTE
`define MEMORY_BYTE(i) soc.memory.bytes[i]
`endif

module testbench;
  `include "program.vh"

  localparam MAX_CYCLES = 10_000_000, MAX_ANSWER_CYCLES = 1000;

  reg aclk = 0, aresetn = 0;
  always #5 aclk = !aclk;

  wire        irq;
  reg  [11:0] awaddr, araddr;
  reg  [31:0] wdata;
  reg         awvalid = 0, wvalid = 0, bready = 0, arvalid = 0, rready = 0;
  wire        awready, wready, bvalid, arready, rvalid;
  wire [31:0] rdata;
  wire [1:0]  bresp, rresp;

  soc #(.DATA_BITS(PORT_BITS), .MEMORY_BYTES(MEMORY_BYTES)) soc (
    .aclk(aclk), .aresetn(aresetn), .irq(irq),
    .s_axil_awaddr(awaddr), .s_axil_awvalid(awvalid), .s_axil_awready(awready),
    .s_axil_wdata(wdata), .s_axil_wstrb(4'b1111), .s_axil_wvalid(wvalid), .s_axil_wready(wready),
    .s_axil_bresp(bresp), .s_axil_bvalid(bvalid), .s_axil_bready(bready),
    .s_axil_araddr(araddr), .s_axil_arvalid(arvalid), .s_axil_arready(arready),
    .s_axil_rdata(rdata), .s_axil_rresp(rresp), .s_axil_rvalid(rvalid), .s_axil_rready(rready)
  );

  // Signals change at falling edges; what is ready then is taken at the rising edge that follows
  reg is_addr_taken, is_data_taken;

  // An access of a register that takes too long, and a program that does not end, end the simulation
  integer answer_cycles = 0, total_cycles = 0;

  always @(posedge aclk) begin
    total_cycles <= total_cycles + 1;
    answer_cycles <= bready || rready ? answer_cycles + 1 : 0;
    if (answer_cycles == MAX_ANSWER_CYCLES) fail("a register does not answer");
    if (total_cycles == MAX_CYCLES) fail("the interrupt does not come");
  end

  task write_register(input [31:0] addr, input [31:0] value);
    begin
      @(negedge aclk);
      awaddr = addr[11:0]; wdata = value; awvalid = 1; wvalid = 1; bready = 1;
      while (awvalid || wvalid) begin
        is_addr_taken = awready;
        is_data_taken = wready;
        @(negedge aclk);
        if (is_addr_taken) awvalid = 0;
        if (is_data_taken) wvalid = 0;
      end
      while (!bvalid) @(negedge aclk);
      if (bresp != 0) fail("a write of a register was refused");
      @(negedge aclk) bready = 0;
    end
  endtask

  task read_register(input [31:0] addr, output [31:0] value);
    begin
      @(negedge aclk);
      araddr = addr[11:0]; arvalid = 1; rready = 1;
      while (!arready) @(negedge aclk);
      @(negedge aclk) arvalid = 0;
      while (!rvalid) @(negedge aclk);
      value = rdata;
      if (rresp != 0) fail("a read of a register was refused");
      @(negedge aclk) rready = 0;
    end
  endtask

  task fail(input [8*60-1:0] reason);
    begin
      $display("FAIL: %0s", reason);
      $finish;
      #1 $stop;
    end
  endtask

  reg [7:0]  image [0:MEMORY_BYTES-1];
  reg [7:0]  expected [0:MEMORY_BYTES-1];
  reg [31:0] value, cycles;
  integer    i, num_wrong;

  initial begin
    if ($test$plusargs("waves")) begin
      $dumpfile("waves.vcd");
      $dumpvars(0, testbench);
    end
    $readmemh("memory.hex", image);
    $readmemh("expected.hex", expected);
    for (i = 0; i < MEMORY_BYTES; i = i + 1) `MEMORY_BYTE(i) = image[i];
    repeat (4) @(negedge aclk);
    aresetn = 1;

    read_register(REG_ID, value);
    if (value != ID) fail("this is no Convoy NPU");
    read_register(REG_CONFIG0, value);
    if (value != CONFIG0) fail("the program is for another configuration");
    read_register(REG_FEATURES, value);
    if ((FEATURES & ~value) != 0) fail("the NPU lacks what the program was compiled for");

    // The NPU may touch nothing but these windows
    for (i = 0; i < NUM_WINDOWS; i = i + 1) begin
      write_register(REG_WINDOW0_BASE + WINDOW_STEP * i, WINDOW_BASE[32*i +: 32]);
      write_register(REG_WINDOW0_LIMIT + WINDOW_STEP * i, WINDOW_LIMIT[32*i +: 32]);
      write_register(REG_WINDOW0_CONTROL + WINDOW_STEP * i, WINDOW_CONTROL[32*i +: 32]);
    end
    write_register(REG_IRQ_STATUS, 1);
    write_register(REG_IRQ_ENABLE, 1);
    write_register(REG_TIMEOUT, MAX_CYCLES / 4);
    write_register(REG_PROGRAM_BASE, PROGRAM_BASE);
    write_register(REG_PROGRAM_COUNT, PROGRAM_COUNT);
    write_register(REG_RECORD_BASE, RECORD_BASE);
    write_register(REG_CONTROL, CONTROL_DOORBELL);

    while (!irq) @(negedge aclk);

    read_register(REG_CYCLES, cycles);
    read_register(REG_STATUS, value);
    if ((value & STATUS_ERROR) != 0) begin
      read_register(REG_ERROR, value);
      $display("ERROR register: %0d", value);
      fail("the NPU stopped with an error");
    end
    write_register(REG_IRQ_STATUS, 1);
    if (irq) fail("the interrupt does not go away");

    num_wrong = 0;
    for (i = 0; i < MEMORY_BYTES; i = i + 1)
      if ((i < RECORD_BASE || i >= RECORD_END) && `MEMORY_BYTE(i) !== expected[i]) begin
        if (num_wrong == 0) $display("address %h: %h, expected %h", i, `MEMORY_BYTE(i), expected[i]);
        num_wrong = num_wrong + 1;
      end
    if (num_wrong != 0) fail("the memory is not as expected");
    $display("PASS: %0d cycles, %0d bytes of memory as expected", cycles, MEMORY_BYTES);
    $finish;
  end
endmodule
