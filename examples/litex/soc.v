// The system that soc.py wrote, with the ports of ../soc/soc.v and registers from address 0 on, for its testbench.

`timescale 1ns / 1ps

`define MEMORY_BYTE(i) soc.system.main_ram[(i) / 4][8 * ((i) % 4) +: 8]

module soc #(
  parameter DATA_BITS = 64,
  parameter MEMORY_BYTES = 65536
) (
  input  wire        aclk,
  input  wire        aresetn,
  output wire        irq,
  input  wire [11:0] s_axil_awaddr,
  input  wire        s_axil_awvalid,
  output wire        s_axil_awready,
  input  wire [31:0] s_axil_wdata,
  input  wire [3:0]  s_axil_wstrb,
  input  wire        s_axil_wvalid,
  output wire        s_axil_wready,
  output wire [1:0]  s_axil_bresp,
  output wire        s_axil_bvalid,
  input  wire        s_axil_bready,
  input  wire [11:0] s_axil_araddr,
  input  wire        s_axil_arvalid,
  output wire        s_axil_arready,
  output wire [31:0] s_axil_rdata,
  output wire [1:0]  s_axil_rresp,
  output wire        s_axil_rvalid,
  input  wire        s_axil_rready
);
  localparam [19:0] REGISTERS_BASE = 20'h30000;

  litex_soc system (
    .aclk(aclk), .aresetn(aresetn), .irq(irq),
    .s_axil_awaddr({REGISTERS_BASE, s_axil_awaddr}), .s_axil_awprot(3'b000),
    .s_axil_awvalid(s_axil_awvalid), .s_axil_awready(s_axil_awready),
    .s_axil_wdata(s_axil_wdata), .s_axil_wstrb(s_axil_wstrb),
    .s_axil_wvalid(s_axil_wvalid), .s_axil_wready(s_axil_wready),
    .s_axil_bresp(s_axil_bresp), .s_axil_bvalid(s_axil_bvalid), .s_axil_bready(s_axil_bready),
    .s_axil_araddr({REGISTERS_BASE, s_axil_araddr}), .s_axil_arprot(3'b000),
    .s_axil_arvalid(s_axil_arvalid), .s_axil_arready(s_axil_arready),
    .s_axil_rdata(s_axil_rdata), .s_axil_rresp(s_axil_rresp),
    .s_axil_rvalid(s_axil_rvalid), .s_axil_rready(s_axil_rready)
  );
endmodule
