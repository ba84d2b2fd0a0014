// Two cells of the ECP5, as the simulation takes them: a PLL that gives its input, and a flip-flop with a preset.

`timescale 1ns / 1ps

/* verilator lint_off DECLFILENAME */
/* verilator lint_off UNUSED */
module EHXPLLL #(
  parameter CLKFB_DIV = 1, CLKI_DIV = 1, CLKOP_CPHASE = 0, CLKOP_DIV = 1, CLKOP_ENABLE = "ENABLED", CLKOP_FPHASE = 0,
  parameter CLKOS_CPHASE = 0, CLKOS_DIV = 1, CLKOS_ENABLE = "ENABLED", CLKOS_FPHASE = 0, FEEDBK_PATH = ""
) (
  input  wire CLKI,
  input  wire RST,
  input  wire STDBY,
  output wire CLKOP,
  output wire CLKOS,
  output wire LOCK
);
  reg [3:0] locking = 4'd0;

  always @(posedge CLKI)
    if (RST) locking <= 4'd0;
    else if (!LOCK) locking <= locking + 4'd1;

  assign CLKOP = CLKI;
  assign CLKOS = CLKI;
  assign LOCK = &locking;
endmodule

module FD1S3BX (
  input  wire CK,
  input  wire D,
  input  wire PD,
  output reg  Q
);
  always @(posedge CK) Q <= D | PD;
endmodule
