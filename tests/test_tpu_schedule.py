"""How often each bundle of a compiled TPU operation runs, against a dump written by hand."""

import pytest

from benchmarks.tpu import schedule

# 2 bundles, then a loop of 34 passes for 32 blocks: 14 bundles, of which 4 are issued after its branch, and an inner loop of 5
# passes through 6 bundles, one of them marked as if it were outside; then 1 bundle. Comments break lines. Two pops of float32
# are in the outer loop, one of int32 in the inner one. A branch forward is no end of a loop.
BUNDLES = """
LB: loop body
     0   :  { %s8_s3 = smov.u32 0 }
   0x1   :  {}
   0x2 LB: > { %s9_s3 = sphi %s8_s3, %s10_s3
  ;;  %p1_p0 = scmp.ge.s32.totalorder %s9_s3, 1 } /* Start region 7 :: Start region 3 */
   0x3   : > { %p2_p1 = scmp.lt.s32.totalorder %s9_s3, 33  ;;  %5 = dma.hbm_to_vmem [thread:$0] %s4 /*
base_bounds: (192, 8, 7)
second_minor_factor: 1 */  ;;  %v1_v0 = vpop.f32.mrf.mxu0  ;;  %v2_v1 = vpop.f32.mrf.mxu1
  ;;  %6 = sbr.rel (!%p1_p0) target = $region33 }
   0x4   : > {}
   0x5   : > {}
   0x6   : > {}
   0x7   : > {}
   0x8   : > {}
   0x9 LB: >> { %s20_s5 = sphi %s19_s5, %s21_s5  ;;  %v3_v2 = vpop.s32.mrf.mxu2
  ;;  %p3_p2 = scmp.ge.s32.totalorder %s21_s5, 5 /* loop exit test */ } /* Start region 2 */
   0xa   : > { %12 = sbr.rel (!%p3_p2) target = $region2 }
   0xb   :  {}
   0xc   :  {}
   0xd   :  {}
   0xe   : >> { %v4_v3 = vmov %v3_v2 } /* End region 2 */
   0xf   :  {} /* Start/End empty region 33 */
  0x10   : > { %p4_p3 = scmp.ge.s32.totalorder %s10_s3, 34 /* loop exit test */ }
  0x11   :  { %13 = sbr.rel (!%p4_p3) target = $region3 }
  0x12   :  {}
  0x13   :  {}
  0x14   :  {}
  0x15   :  {}
  0x16   :  { %7 = vsyncpa [#allocation4], 1 }
"""


def test_bundles_count_as_often_as_their_loops_run() -> None:
    found = schedule.schedule(BUNDLES)
    assert found.cycles == 2 + 32 * (14 + 5 * 6) + 1
    assert found.matrix_cycles == 32 * (2 * 2.0 + 5 * 1.0)
    assert found.unknown_loops == 0


def test_a_loop_whose_bound_is_computed_counts_once_and_is_said() -> None:
    found = schedule.schedule(BUNDLES.replace("%s21_s5, 5 /*", "%s21_s5, %s22_s6 /*"))
    assert (found.cycles, found.unknown_loops) == (2 + 32 * (14 + 6) + 1, 1)


def test_a_loop_whose_end_is_not_found_is_an_error() -> None:
    with pytest.raises(ValueError, match="a loop without a branch back"):
        schedule.schedule(BUNDLES.replace("target = $region2 ", "target = $region9 "))


def test_a_loop_that_is_no_pipeline_runs_up_to_its_bound() -> None:
    assert schedule.schedule(BUNDLES.replace("%s9_s3, 33", "%s9_s3, 9")).cycles == 2 + 34 * (14 + 5 * 6) + 1


def test_dumps_are_found_by_the_name_of_the_operation(tmp_path) -> None:
    for name in ("17-fusion.3-01", "17-TLP-01", "17-<late-finalization>-01"):
        (tmp_path / f"{name}-final_bundles.txt").write_text(BUNDLES)
    (tmp_path / "17-fusion.3-00-schedule-analysis_final_bundles.txt").write_text("total scheduled bundles: 9")
    strange = BUNDLES.replace("target = $region2 ", "target = $region9 ")  # left out: its operation is then in doubt
    (tmp_path / "18-fusion.4-01-final_bundles.txt").write_text(strange)
    assert schedule.read(tmp_path) == {"fusion.3": schedule.schedule(BUNDLES)}
