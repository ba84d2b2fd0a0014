// A memory behind AXI4 for simulation: INCR bursts of the bus width, one read and one write at a time.

module axi_memory #(
  parameter DATA_BITS = 64,
  parameter ID_BITS = 4,
  parameter SIZE_BYTES = 65536,
  parameter [31:0] BASE = 0,
  parameter LATENCY_CYCLES = 4  // from a read address to its first beat
) (
  input  wire                   aclk,
  input  wire                   aresetn,
  input  wire [ID_BITS-1:0]     s_axi_awid,
  input  wire [31:0]            s_axi_awaddr,
  input  wire [7:0]             s_axi_awlen,
  input  wire                   s_axi_awvalid,
  output wire                   s_axi_awready,
  input  wire [DATA_BITS-1:0]   s_axi_wdata,
  input  wire [DATA_BITS/8-1:0] s_axi_wstrb,
  input  wire                   s_axi_wlast,
  input  wire                   s_axi_wvalid,
  output wire                   s_axi_wready,
  output reg  [ID_BITS-1:0]     s_axi_bid,
  output wire [1:0]             s_axi_bresp,
  output reg                    s_axi_bvalid,
  input  wire                   s_axi_bready,
  input  wire [ID_BITS-1:0]     s_axi_arid,
  input  wire [31:0]            s_axi_araddr,
  input  wire [7:0]             s_axi_arlen,
  input  wire                   s_axi_arvalid,
  output wire                   s_axi_arready,
  output reg  [ID_BITS-1:0]     s_axi_rid,
  output wire [DATA_BITS-1:0]   s_axi_rdata,
  output wire [1:0]             s_axi_rresp,
  output wire                   s_axi_rlast,
  output wire                   s_axi_rvalid,
  input  wire                   s_axi_rready
);
  localparam BEAT_BYTES = DATA_BITS / 8;
  localparam [1:0] OKAY = 2'b00, DECERR = 2'b11;

  reg [7:0] bytes [0:SIZE_BYTES-1];

  // Reads
  reg        is_reading;
  reg [31:0] read_addr;
  reg [7:0]  read_beats_left;
  reg [15:0] wait_cycles;

  assign s_axi_arready = !is_reading;
  assign s_axi_rvalid = is_reading && wait_cycles == 0;
  assign s_axi_rlast = read_beats_left == 0;
  wire       is_read_error = read_addr > SIZE_BYTES - BEAT_BYTES;
  assign s_axi_rresp = is_read_error ? DECERR : OKAY;

  genvar g;
  generate
    for (g = 0; g < BEAT_BYTES; g = g + 1) begin : beat
      assign s_axi_rdata[8*g +: 8] = is_read_error ? 8'h00 : bytes[read_addr + g];
    end
  endgenerate

  always @(posedge aclk)
    if (!aresetn) begin
      is_reading <= 1'b0;
    end else if (!is_reading) begin
      if (s_axi_arvalid) begin
        is_reading <= 1'b1;
        read_addr <= s_axi_araddr - BASE;
        read_beats_left <= s_axi_arlen;
        s_axi_rid <= s_axi_arid;
        wait_cycles <= LATENCY_CYCLES - 1;
      end
    end else if (wait_cycles != 0) begin
      wait_cycles <= wait_cycles - 1;
    end else if (s_axi_rready) begin
      read_addr <= read_addr + BEAT_BYTES;
      read_beats_left <= read_beats_left - 1;
      if (s_axi_rlast) is_reading <= 1'b0;
    end

  // Writes: data are taken once the address has come
  reg        is_writing, is_write_error;
  reg [31:0] write_addr;
  integer    i;

  assign s_axi_awready = !is_writing && !s_axi_bvalid;
  assign s_axi_wready = is_writing;
  assign s_axi_bresp = is_write_error ? DECERR : OKAY;

  always @(posedge aclk)
    if (!aresetn) begin
      is_writing <= 1'b0;
      s_axi_bvalid <= 1'b0;
    end else begin
      if (s_axi_awvalid && s_axi_awready) begin
        is_writing <= 1'b1;
        is_write_error <= 1'b0;
        write_addr <= s_axi_awaddr - BASE;
        s_axi_bid <= s_axi_awid;
      end
      if (s_axi_wvalid && s_axi_wready) begin
        if (write_addr > SIZE_BYTES - BEAT_BYTES) is_write_error <= 1'b1;
        else
          for (i = 0; i < BEAT_BYTES; i = i + 1)
            if (s_axi_wstrb[i]) bytes[write_addr + i] <= s_axi_wdata[8*i +: 8];
        write_addr <= write_addr + BEAT_BYTES;
        if (s_axi_wlast) begin
          is_writing <= 1'b0;
          s_axi_bvalid <= 1'b1;
        end
      end
      if (s_axi_bvalid && s_axi_bready) s_axi_bvalid <= 1'b0;
    end
endmodule
