"""Emitted Verilog, written for Verilator."""

import pytest

from convoy.driver.devices.verilog_rewrite import drop_zeros, fold_registers, narrow, repeat_bits, rewritten

HEAD = r"""module top(clk, a, q);
  reg \$auto$verilog_backend.cc:2355:dump_module$1  = 0;
  reg [3:0] \$2 ;
  reg [3:0] q = 4'h0;
"""
REGISTER = r"""  always @(posedge clk)
    q <= \$2 ;
"""
PROCESS = r"""  always @* begin
    if (\$auto$verilog_backend.cc:2355:dump_module$1 ) begin end
    \$2  = q;
    casez (a)
      2'h1:
          \$2 [1:0] = 2'h3;
    endcase
    if (rst) begin
      \$2  = 4'h0;
    end
  end
"""


def test_process_moves_into_the_register():
    folded = fold_registers(HEAD + REGISTER + PROCESS + "endmodule\n")
    assert (
        folded
        == HEAD.replace("  reg [3:0] \\$2 ;\n", "")
        + r"""  always @(posedge clk) begin
    casez (a)
      2'h1:
          q[1:0] <= 2'h3;
    endcase
    if (rst) begin
      q <= 4'h0;
    end
  end
endmodule
"""
    )


def test_a_value_that_is_read_elsewhere_stays():
    text = HEAD + "  assign x = \\$2 ;\n" + REGISTER + PROCESS + "endmodule\n"
    assert fold_registers(text) == text


def test_a_process_of_two_values_stays():
    text = HEAD + REGISTER + PROCESS.replace("    if (rst)", "    y = 1'h1;\n    if (rst)") + "endmodule\n"
    assert fold_registers(text) == text


def test_modules_are_told_apart():
    other = PROCESS.replace("q;", "p;")
    text = HEAD + REGISTER + "endmodule\nmodule other;\n" + other + "endmodule\n"
    assert fold_registers(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"{ a[7], a[7], a[7], a[7:1] }", r"{ {3{a[7]}}, a[7:1] }"),
        (r"{ b, \$1 [17], \$1 [17], \$1 [17], \$1 [17], \$1  }", r"{ b, {4{\$1 [17]}}, \$1  }"),
        (r"{ a[7], a[7], a[7:1] }", r"{ a[7], a[7], a[7:1] }"),
        (r"{ a[7], ba[7], ba[7], ba[7], a[7], a[7], a[70] }", r"{ a[7], {3{ba[7]}}, a[7], a[7], a[70] }"),
    ],
)
def test_repeated_bits(text, expected):
    assert repeat_bits(text) == expected


SUM = r"""module top(a, b, q);
  wire [32:0] \$1 ;
  assign \$1  = $signed(a[31:0]) + $signed({ b, 1'h0 });
  assign q = \$1 [31:0];
  assign r = \$1 [15:0];
endmodule
"""


def test_a_sum_is_as_wide_as_it_is_used():
    assert narrow(SUM) == SUM.replace("wire [32:0]", "wire [31:0]")
    assert narrow(SUM.replace("+", "<<")) == SUM.replace("+", "<<").replace("wire [32:0]", "wire [31:0]")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("r = \\$1 [15:0]", "r = \\$1 [32:1]"),  # another part
        ("r = \\$1 [15:0]", "r = \\$1 "),  # all of it
        ("r = \\$1 [15:0]", "r = \\$1 [32:0]"),
        ("+", ">>"),  # low bits of the result need more than the low bits of the operands
        ("+", "/"),
        ("+", "+ c +"),
    ],
)
def test_what_stays_wide(old, new):
    text = SUM.replace(old, new)
    assert text != SUM
    assert narrow(text) == text


def test_zeros_of_memories():
    zeros = "  initial begin\n    memory[0] = 8'h00;\n    memory[1] = 8'h00;\n  end\n"
    assert drop_zeros(f"module top;\n{zeros}endmodule\n") == "module top;\nendmodule\n"
    one = zeros.replace("[1] = 8'h00", "[1] = 8'h10")
    assert drop_zeros(one) == one


def test_all_together():
    assert rewritten(SUM) == narrow(SUM)
