"""The copy of the model's evaluation for cycles without a reset."""

from convoy.driver.devices.quiet_copy import can_copy, write_quiet_copy

HEADER = """class Vconvoy___024root final {
    VlUnpacked<QData/*63:0*/, 1> __VactTriggered;
    VlUnpacked<QData/*63:0*/, 1> __VnbaTriggered;
};
"""
SOURCE = """#include "Vconvoy__pch.h"
extern const VlUnpacked<CData/*0:0*/, 4> Vconvoy__ConstPool__TABLE_0;
void Vconvoy___024root___eval_triggers_vec__act(Vconvoy___024root* vlSelf) {
    vlSelfRef.__VactTriggered[0U] = 1U;
}

VL_INLINE_OPT void Vconvoy___024root___nba_sequent__TOP__0(Vconvoy___024root* vlSelf) {
    vlSelfRef.convoy_native__DOT__npu__DOT__npu__DOT__resets
        = (0x3eU & (vlSelfRef.convoy_native__DOT__npu__DOT__npu__DOT__resets << 1U));
    if (vlSelfRef.convoy_native__DOT__q_rst) {
        vlSelfRef.convoy_native__DOT__npu__DOT__count = 0U;
    }
    vlSelfRef.convoy_native__DOT__q_rst = vlSelfRef.rst;
    vlSelfRef.convoy_native__DOT__npu__DOT__unit_resets_too = vlSelfRef.convoy_native__DOT__q_rstable;
}

void Vconvoy___024root___eval_nba(Vconvoy___024root* vlSelf) {
    Vconvoy___024root___nba_sequent__TOP__0(vlSelf);
}
"""


def model(folder, header=HEADER, source=SOURCE):
    (folder / "Vconvoy___024root.h").write_text(header)
    (folder / "Vconvoy___024root__0.cpp").write_text(source)
    (folder / "Vconvoy___024root__0__Slow.cpp").write_text(source)
    (folder / "Vconvoy.cpp").write_text("void Vconvoy::eval_step() {\n}\n")
    return folder


def test_resets_are_read_as_zero(tmp_path):
    (copy,) = write_quiet_copy(model(tmp_path))
    assert copy.read_text() == (
        """#include "Vconvoy__pch.h"
extern const VlUnpacked<CData/*0:0*/, 4> Vconvoy__ConstPool__TABLE_0;

VL_INLINE_OPT void Vconvoy___024root___nba_sequent__TOP__0__quiet(Vconvoy___024root* vlSelf) {
    vlSelfRef.convoy_native__DOT__npu__DOT__npu__DOT__resets
        = (0x3eU & (CData{} << 1U));
    if (CData{}) {
        vlSelfRef.convoy_native__DOT__npu__DOT__count = 0U;
    }
    vlSelfRef.convoy_native__DOT__q_rst = vlSelfRef.rst;
    vlSelfRef.convoy_native__DOT__npu__DOT__unit_resets_too = vlSelfRef.convoy_native__DOT__q_rstable;
}

void Vconvoy___024root___eval_nba__quiet(Vconvoy___024root* vlSelf) {
    Vconvoy___024root___nba_sequent__TOP__0__quiet(vlSelf);
}
"""
    )


def test_the_header_looks_at_every_reset_that_is_left_out(tmp_path):
    write_quiet_copy(model(tmp_path))
    header = (tmp_path / "quiet.h").read_text()
    for name in ("npu__DOT__npu__DOT__resets", "q_rst"):
        assert f"| root.convoy_native__DOT__{name}" in header
    assert "q_rstable" not in header


def test_another_form_is_not_copied(tmp_path):
    assert can_copy(model(tmp_path))
    assert not can_copy(model(tmp_path, header=HEADER.replace("QData/*63:0*/, 1> __Vnba", "QData/*63:0*/, 2> __Vnba")))
    assert not can_copy(model(tmp_path, source=SOURCE.replace("eval_nba(", "eval_other(")))
    assert not can_copy(model(tmp_path, source=SOURCE.replace("eval_triggers_vec__act", "eval_triggers__act")))
