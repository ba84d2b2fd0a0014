// `JoinedDifference` (hw/lib/joined.py) of carry cells of an ECP5, two bits each.
//
// A cell's LUT says whether a bit passes the carry on: (B & C & D) ^ ~A, of the minuend and the inverted subtrahend. Its
// entries for C = D = 0 are also, by A and B, the carry of a bit that does not: ~A. The first carry is the one that
// makes an inverted number a negative one.
module joined (a, b, c, subtrahend, difference);
    parameter BITS = `BITS;
    parameter [15:0] BORROW = 16'h9555;
    input [BITS-1:0] a, b, c, subtrahend;
    output [BITS-1:0] difference;
    wire [BITS/2:0] carry;
    assign carry[0] = 1'b1;
    genvar i;
    generate
        for (i = 0; i < BITS; i = i + 2) begin : pair
            CCU2C #(
                .INIT0(BORROW), .INIT1(BORROW), .INJECT1_0("NO"), .INJECT1_1("NO")
            ) cell_i (
                .CIN(carry[i / 2]), .COUT(carry[i / 2 + 1]),
                .A0(subtrahend[i]), .B0(a[i]), .C0(b[i]), .D0(c[i]), .S0(difference[i]),
                .A1(subtrahend[i + 1]), .B1(a[i + 1]), .C1(b[i + 1]), .D1(c[i + 1]), .S1(difference[i + 1])
            );
        end
    endgenerate
endmodule
