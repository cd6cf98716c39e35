"""The cost model of compiled TPU programs, against texts written by hand and against closed forms."""

import subprocess
import sys

import pytest

from benchmarks.tpu import collectives, compiler, hlo, residents, schedule
from benchmarks.tpu.chip import V5E
from benchmarks.tpu.cost import cost

FREE = schedule.Schedule(0.0, 0.0)

# A fusion reads one of 12 matrices of a stack in a loop; a copy brings an argument to VMEM; an update is made in place.
LOOP = """HloModule jit_f, is_scheduled=true

%sliced (p: f32[12,256,256], i: s32[]) -> f32[256,256] {
  %p = f32[12,256,256]{2,1,0:T(8,128)} parameter(0)
  %i = s32[]{:T(128)S(6)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %one = f32[1,256,256]{2,1,0:T(8,128)} dynamic-slice(%p, %i, %zero, %zero), dynamic_slice_sizes={1,256,256}
  ROOT %flat = f32[256,256]{1,0:T(8,128)} bitcast(%one)
}

%updated (s: f32[12,256,256], x: f32[256,256], j: s32[]) -> f32[12,256,256] {
  %s = f32[12,256,256]{2,1,0:T(8,128)} parameter(0)
  %x = f32[256,256]{1,0:T(8,128)} parameter(1)
  %j = s32[]{:T(128)S(6)} parameter(2)
  %none = s32[]{:T(128)} constant(0)
  %row = f32[1,256,256]{2,1,0:T(8,128)} bitcast(%x)
  ROOT %put = f32[12,256,256]{2,1,0:T(8,128)} dynamic-update-slice(%s, %row, %j, %none, %none)
}

%body (arg: (s32[], f32[12,256,256])) -> (s32[], f32[12,256,256]) {
  %arg = (s32[]{:T(128)}, f32[12,256,256]{2,1,0:T(8,128)}) parameter(0)
  %n = s32[]{:T(128)S(6)} get-tuple-element(%arg), index=0
  %stack = f32[12,256,256]{2,1,0:T(8,128)} get-tuple-element(%arg), index=1
  %read = f32[256,256]{1,0:T(8,128)S(1)} fusion(%stack, %n), kind=kLoop, calls=%sliced
  %write = f32[12,256,256]{2,1,0:T(8,128)} fusion(%stack, %read, %n), kind=kLoop, calls=%updated
  ROOT %next = (s32[]{:T(128)}, f32[12,256,256]{2,1,0:T(8,128)}) tuple(%n, %write)
}

%condition (arg.1: (s32[], f32[12,256,256])) -> pred[] {
  %arg.1 = (s32[]{:T(128)}, f32[12,256,256]{2,1,0:T(8,128)}) parameter(0)
  %n.1 = s32[]{:T(128)} get-tuple-element(%arg.1), index=0
  %last = s32[]{:T(128)} constant(12)
  ROOT %less = pred[]{:T(512)} compare(%n.1, %last), direction=LT
}

ENTRY %main (a: f32[12,256,256], b: bf16[100,200]) -> f32[12,256,256] {
  %a = f32[12,256,256]{2,1,0:T(8,128)} parameter(0)
  %b = bf16[100,200]{1,0:T(8,128)(2,1)} parameter(1)
  %begin = (bf16[100,200]{1,0:T(8,128)(2,1)S(1)}, bf16[100,200]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%b)
  %end = bf16[100,200]{1,0:T(8,128)(2,1)S(1)} copy-done(%begin)
  %start = s32[]{:T(128)} constant(0)
  %carry = (s32[]{:T(128)}, f32[12,256,256]{2,1,0:T(8,128)}) tuple(%start, %a)
  %loop = (s32[]{:T(128)}, f32[12,256,256]{2,1,0:T(8,128)}) while(%carry), condition=%condition, body=%body
  ROOT %result = f32[12,256,256]{2,1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""
MATRIX = 256 * 256 * 4  # bytes

# Two sums and a gather. The gather is asynchronous: two fusions spell it again.
EXCHANGE = """HloModule jit_g

%step.1 (p: bf16[64,128]) -> bf16[256,128] {
  %p = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gather.1 = bf16[256,128]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=3, backend_config={"chain_id":"7"}
}

%step.2 (p.1: bf16[64,128]) -> bf16[256,128] {
  %p.1 = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gather.2 = bf16[256,128]{1,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=3, backend_config={"chain_id":"7"}
}

ENTRY %main (x: bf16[64,128]) -> bf16[256,128] {
  %x = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %sum.1 = bf16[64,128]{1,0:T(8,128)(2,1)} all-reduce(%x), channel_id=1, to_apply=%add
  %sum.2 = bf16[64,128]{1,0:T(8,128)(2,1)} all-reduce(%sum.1), channel_id=2, to_apply=%add
  %moved = (bf16[64,128]{1,0}, bf16[64,128]{1,0}, u32[]{:S(2)}) collective-permute-start(%sum.2), channel_id=4
  %arrived = bf16[64,128]{1,0} collective-permute-done(%moved)
  %early = bf16[256,128]{1,0:T(8,128)(2,1)} fusion(%arrived), kind=kCustom, calls=%step.1
  ROOT %late = bf16[256,128]{1,0:T(8,128)(2,1)} fusion(%arrived), kind=kCustom, calls=%step.2
}
"""


def instruction(text: str, name: str) -> hlo.Instruction:
    return next(one for lines in hlo.parse(text).computations.values() for one in lines if one.name == name)


def test_arrays_take_whole_tiles_in_hbm_and_nothing_elsewhere() -> None:
    plain, padded, moved, scalar = hlo.arrays_of(
        "(f32[256,256]{1,0:T(8,128)}, bf16[32,784,6,64]{1,3,2,0:T(8,128)(2,1)}, pred[196,196]{0,1:T(8,128)(4,1)S(1)}, s32[])"
    )
    assert plain.stored_bytes == plain.bytes == 256 * 256 * 4
    assert padded.bytes == 32 * 784 * 384 * 2
    assert padded.stored_bytes == 32 * 896 * 384 * 2  # tokens lie along the lanes
    assert (moved.stored_bytes, moved.hbm_bytes) == (200 * 256, 0)
    assert (scalar.dims, scalar.bytes) == ((), 4)


def test_an_instruction_says_what_it_runs_and_how_often() -> None:
    module = hlo.parse(LOOP)
    assert module.entry == "main"
    assert set(module.computations) == {"main", "body", "condition", "sliced", "updated"}
    write = instruction(LOOP, "write")
    assert (write.opcode, write.operands, write.calls) == ("fusion", ("stack", "read", "n"), "updated")
    loop = instruction(LOOP, "loop")
    assert loop.attribute("body") == "body"
    assert module.trips(loop) == 12
    assert hlo.parse(LOOP.replace("constant(12)", "add(%n.1, %n.1)")).trips(loop) is None


def test_only_the_slice_that_is_read_or_updated_moves_and_as_often_as_the_loop_runs() -> None:
    schedules = {"read": schedule.Schedule(100.0, 0.0), "write": schedule.Schedule(1e6, 3e6)}
    found = cost(hlo.parse(LOOP), schedules, temp_bytes=5)
    by_name = {op.instruction.name: op for op in found.ops}
    assert by_name["read"].hbm_bytes == 12 * MATRIX  # its result is in VMEM
    assert by_name["write"].hbm_bytes == 12 * MATRIX  # the rest of the stack stays where it is
    assert by_name["begin"].hbm_bytes == 104 * 256 * 2  # from HBM to VMEM, once
    assert by_name["read"].seconds(V5E) == pytest.approx(12 * MATRIX / V5E.bandwidth)
    assert by_name["write"].seconds(V5E) == pytest.approx(12 * 3e6 / V5E.clock)
    assert by_name["begin"].seconds(V5E) == 0.0  # beside the loop
    assert found.seconds == pytest.approx(12 * MATRIX / V5E.bandwidth + 12 * 3e6 / V5E.clock)
    assert [op.instruction.name for op in found.biggest(1)] == ["write"]
    assert (found.temp_bytes, found.doubtful_share()) == (5, 0.0)


def test_an_operand_that_only_changes_its_name_in_a_fusion_is_read_whole() -> None:
    text = """HloModule m

%renamed (p.1: f32[512,256]) -> f32[2,256,256] {
  %p.1 = f32[512,256]{1,0:T(8,128)} parameter(0)
  ROOT %same = f32[2,256,256]{2,1,0:T(8,128)} bitcast(%p.1)
}

%product (p: f32[512,256]) -> f32[256,256] {
  %p = f32[512,256]{1,0:T(8,128)} parameter(0)
  %two = f32[2,256,256]{2,1,0:T(8,128)} fusion(%p), kind=kLoop, calls=%renamed
  ROOT %dot = f32[256,256]{1,0:T(8,128)} convolution(%two, %two), dim_labels=0bf_0io->bf
}

ENTRY %main (x: f32[512,256]) -> f32[256,256] {
  %x = f32[512,256]{1,0:T(8,128)} parameter(0)
  ROOT %y = f32[256,256]{1,0:T(8,128)S(1)} fusion(%x), kind=kOutput, calls=%product
}
"""
    assert cost(hlo.parse(text), {"y": FREE}).hbm_bytes == 2 * MATRIX


def test_transfers_beside_the_operations_are_not_free_where_there_is_nothing_to_hide_them() -> None:
    text = LOOP.replace("constant(12)", "constant(1)").replace("bf16[100,200]", "bf16[10000,20000]")
    found = cost(hlo.parse(text), {"read": FREE, "write": FREE})
    assert found.seconds == pytest.approx(found.hbm_bytes / V5E.bandwidth)
    assert found.hbm_bytes == 10000 * 20096 * 2 + 2 * MATRIX


def test_an_operation_without_a_schedule_has_that_of_an_equal_one_or_is_doubtful() -> None:
    twin = LOOP.replace(
        "  ROOT %next", "  %again = f32[256,256]{1,0:T(8,128)S(1)} fusion(%stack, %n), calls=%sliced\n  ROOT %next"
    )
    ops = {op.instruction.name: op for op in cost(hlo.parse(twin), {"read": schedule.Schedule(7.0, 2.0), "write": FREE}).ops}
    assert (ops["again"].cycles, ops["again"].matrix_cycles, ops["again"].doubt) == (12 * 7.0, 12 * 2.0, "")
    rough = LOOP.replace("calls=%sliced", 'calls=%sliced, backend_config={"estimated_cycles":"3000000"}')
    found = cost(hlo.parse(rough), {"write": FREE})
    assert found.doubtful_share() == pytest.approx(0.95, abs=0.05)


def test_a_loop_of_unknown_length_makes_the_whole_doubtful() -> None:
    found = cost(hlo.parse(LOOP.replace("constant(12)", "add(%n.1, %n.1)")), {"read": FREE, "write": FREE})
    assert (found.unknown_loops, found.doubtful_share()) == (1, 1.0)


def test_an_asynchronous_collective_counts_once_and_others_each_time() -> None:
    module = hlo.parse(EXCHANGE)
    found = collectives.collectives(module, [("main", 2)])
    counted = {kind: (one.count, one.bytes) for kind, one in found.items()}
    part = 64 * 128 * 2  # bytes
    assert counted == {"all-reduce": (4, 4 * part), "all-gather": (2, 2 * 4 * part), "collective-permute": (2, 2 * part)}


def test_what_a_device_sends_depends_on_how_many_exchange() -> None:
    text = EXCHANGE.replace("HloModule jit_g", "HloModule jit_g, num_partitions=12")
    text = text.replace("channel_id=1,", "channel_id=1, replica_groups={{0,1,2},{3,4,5},{6,7,8},{9,10,11}},")
    text = text.replace("channel_id=3,", "channel_id=3, replica_groups=[3,4]<=[4,3]T(1,0),")
    module = hlo.parse(text)
    found = collectives.collectives(module, [("main", 5)])
    part = 64 * 128 * 2  # bytes
    assert found["all-reduce"].sent == pytest.approx(5 * part * (2 * 2 / 3 + 2 * 11 / 12))  # of 3 devices, and of all 12
    assert found["all-gather"].sent == pytest.approx(5 * 3 * part)  # the own part goes to 3 others
    assert found["collective-permute"].sent == 5 * part
    assert collectives.share("reduce-scatter", 4) * part == 3 * part


def test_arrays_of_length_times_length_and_moved_copies_are_seen_only_in_hbm() -> None:
    text = """HloModule m

ENTRY %main (q: bf16[256,196,384]) -> bf16[256,196,384] {
  %q = bf16[256,196,384]{2,1,0:T(8,128)(2,1)} parameter(0)
  %scores = f32[256,6,196,196]{3,2,1,0:T(8,128)} custom-call(%q), custom_call_target="x"
  %inside = f32[256,6,196,196]{3,2,1,0:T(8,128)S(1)} custom-call(%q), custom_call_target="x"
  %turned = bf16[256,6,196,64]{3,2,1,0:T(8,128)(2,1)} transpose(%q), dimensions={0,2,1,3}
  %hidden = bf16[256,196,1536]{2,1,0:T(8,128)(2,1)} custom-call(%q), custom_call_target="x"
  ROOT %out = bf16[256,196,384]{2,1,0:T(8,128)(2,1)} custom-call(%q), custom_call_target="x"
}
"""
    words = residents.in_words(hlo.parse(text), 256, 196, 384)
    size = 256 * 6 * 200 * 128 * 2 / 1e6
    expected = f"1 L x L array (315 MB); 1 copied or transposed q-sized array ({size:.0f} MB); "
    assert words == expected + f"1 padded q-sized array ({size:.0f} MB)"
    plain = "\n".join(line for line in text.splitlines() if "%scores" not in line and "%turned" not in line)
    assert residents.in_words(hlo.parse(plain), 256, 196, 384) == (
        "no L x L array; no copied or transposed q-sized array; no padded q-sized array"
    )


def test_a_missing_compiler_is_one_line(monkeypatch) -> None:
    monkeypatch.setenv("TPU_LIBRARY_PATH", "/nowhere/libtpu.so")
    with pytest.raises(compiler.NoCompiler, match=r"^TPU_LIBRARY_PATH names no file: /nowhere/libtpu.so$"):
        compiler.library()


# In a process of its own: libtpu reads its settings once. Each line: time / bound, matrix units' time / bound, doubtful share.
PROGRAM = """
import jax, jax.numpy as jnp
from benchmarks.tpu import compiler
jax.config.update("jax_enable_compilation_cache", False)
n, m, bandwidth = 4096, 2048, compiler.V5E.bandwidth
product = 2 * m**3 / compiler.V5E.flops

def layers(w, x):
    return jax.lax.scan(lambda x, one: (jnp.tanh(x @ one), None), x, w)[0]

def gradients(w, x):
    return jax.grad(lambda w, x: layers(w, x).astype(jnp.float32).sum(), argnums=(0, 1))(w, x)

def matrices(*shape):
    return compiler.replicated(jax.ShapeDtypeStruct(shape, jnp.bfloat16))

x = matrices(m, m)
cases = (
    (lambda a: a @ a, (matrices(n, n),), 2 * n**3 / compiler.V5E.flops),
    (lambda a: a + 1, (matrices(n, n),), 4 * n * n / bandwidth),
    (layers, (matrices(11, m, m), x), 11 * product),
    (layers, (matrices(23, m, m), x), 23 * product),
    (gradients, (matrices(11, m, m), x), 3 * 11 * product),
)
for function, arguments, bound in cases:
    program = compiler.compiled(function, *arguments)
    cost = program.cost()
    print(cost.seconds / bound, cost.matrix_seconds / bound, cost.doubtful_share())
    assert (" while(" in program.text) == (function in (layers, gradients))
kept = [compiler.compiled(lambda a, b: a + b, x, x, donate=one).kept_bytes for one in ((), (0,))]
assert kept == [3 * 2 * m * m, 2 * 2 * m * m], kept
"""


def test_the_model_of_products_copies_and_loops_over_layers_is_at_the_chip_s_bounds() -> None:
    try:
        compiler.library()
    except compiler.NoCompiler as error:
        pytest.skip(str(error))
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = [[float(number) for number in line.split()] for line in run.stdout.splitlines()]
    assert [doubtful for *_, doubtful in lines] == [0.0] * 5
    once, copied, eleven, twice, gradients = lines
    assert (once[0], copied[0]) == (pytest.approx(1.0, rel=0.03), pytest.approx(1.0, rel=0.03))
    for _, matrix_units, _ in (eleven, twice, gradients):  # one product a layer, and three with gradients
        assert matrix_units == pytest.approx(1.0, rel=0.05)
    assert twice[0] == pytest.approx(eleven[0], rel=0.02)
    assert 1.0 <= eleven[0] < gradients[0] < 1.3
