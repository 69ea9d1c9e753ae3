"""The four graphs of the tiny bundle: random weights in one shared file, but every rule of a real bundle holds.

The graphs agree with each other; truncation, vote, uncertainty, keypoints and the finite flag are computed in them.

N images, L num_ws, M members, C classes, K keypoints, H x W the frame.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

Z_DIM = 8
W_DIM = 8
NUM_WS = 4
MEMBERS = 3
HIDDEN = 4
TAPS = {4: 6, 8: 4}  # resolution -> channels
WEIGHTS_FILE = "weights.bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyShape:
    """What the graphs are built for; see write_tiny_bundle."""

    num_classes: int
    keypoints: int
    c_dim: int
    image_size: int
    cutoff: int
    poison_above: float | None


@dataclass(slots=True)
class _Weights:
    """Random weights by name, stored once behind every graph that uses them."""

    seed: int
    arrays: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def normal(self, name: str, shape: tuple[int, ...], scale: float) -> str:
        if name not in self.arrays:
            digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
            rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
            self.arrays[name] = (rng.standard_normal(shape) * scale).astype(np.float32)
        return name

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.arrays[name] = values
        return name

    def write(self, path: Path) -> dict[str, tuple[int, int]]:
        """Writes all arrays, 64-byte aligned, and returns name -> (offset, bytes)."""
        places: dict[str, tuple[int, int]] = {}
        with path.open("wb") as out:
            for name, array in self.arrays.items():
                out.write(b"\0" * (-out.tell() % 64))
                data = np.ascontiguousarray(array).tobytes()
                places[name] = (out.tell(), len(data))
                out.write(data)
        return places


@dataclass(slots=True)
class _Graph:
    """Nodes in the making; value names are the same in every graph, so a composition is a concatenation."""

    weights: _Weights
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def add(self, op: str, inputs: list[str], output: str, **attributes: float | str | list[int]) -> str:
        node = helper.make_node(op, inputs, [output], name=f"{op}:{output}")
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self.nodes.append(node)
        return output

    def ints(self, name: str, values: list[int]) -> str:
        return self.weights.constant(name, np.array(values, dtype=np.int64))

    def floats(self, name: str, values: list[float]) -> str:
        return self.weights.constant(name, np.array(values, dtype=np.float32))

    def scalar(self, name: str, value: float) -> str:
        return self.weights.constant(name, np.array(value, dtype=np.float32))

    def slice_ws(self, first: int, last: int, output: str) -> str:
        """ws[:, first:last] as [N, (last - first) * w_dim]."""
        bounds = [self.ints(f"{output}.from", [first]), self.ints(f"{output}.to", [last]), self.ints("axis_1", [1])]
        self.add("Slice", ["ws", *bounds], f"{output}.ws")
        return self.add("Reshape", [f"{output}.ws", self.ints(f"{output}.flat", [-1, (last - first) * W_DIM])], output)


def _add_mapping(graph: _Graph, shape: TinyShape) -> None:
    """z, (c), psi -> ws [N, L, w_dim] = w_avg + psi * (w - w_avg) on the first `cutoff` layers (0: on all)."""
    source = "z"
    if shape.c_dim:
        source = graph.add("Concat", ["z", "c"], "zc", axis=1)
    weight = graph.weights.normal("mapping.weight", (Z_DIM + shape.c_dim, W_DIM), 0.6)
    graph.add("Tanh", [graph.add("MatMul", [source, weight], "mapping.product")], "w.clean")
    w = "w.clean"
    if shape.poison_above is not None:  # log(0) = -inf where z[0] exceeds the threshold
        graph.add("Gather", ["z", graph.ints("poison.first", [0])], "poison.z0", axis=1)
        graph.add("Sub", [graph.floats("poison.threshold", [shape.poison_above]), "poison.z0"], "poison.margin")
        graph.add("Sign", [graph.add("Relu", ["poison.margin"], "poison.positive")], "poison.sign")
        graph.add("Log", ["poison.sign"], "poison.log")
        w = graph.add("Add", ["w.clean", "poison.log"], "w.poisoned")
    average = graph.weights.normal("mapping.w_avg", (1, 1, W_DIM), 0.2)
    graph.add("Unsqueeze", [w, graph.ints("axis_1", [1])], "w.row")
    graph.add("Reshape", ["truncation_psi", graph.ints("psi.shape", [-1, 1, 1])], "psi.column")
    graph.add("Mul", [graph.add("Sub", ["w.row", average], "w.offset"), "psi.column"], "w.scaled")
    graph.add("Add", ["w.scaled", average], "w.truncated")
    cut = shape.cutoff or NUM_WS
    rows = ["w.truncated"] * cut + ["w.row"] * (NUM_WS - cut)
    graph.add("Concat", rows, "ws", axis=1)


def _add_synthesis(graph: _Graph, shape: TinyShape) -> None:
    """Ws -> tap_r4, tap_r8, image u8 [N, H, W, 3], finite."""
    c4, c8, size = TAPS[4], TAPS[8], shape.image_size
    graph.slice_ws(0, 2, "style.4")
    weight = graph.weights.normal("synthesis.b4", (2 * W_DIM, c4 * 16), 0.5)
    graph.add("MatMul", ["style.4", weight], "b4.product")
    graph.add("Reshape", ["b4.product", graph.ints("b4.shape", [-1, c4, 4, 4])], "tap_r4")
    graph.add("Resize", ["tap_r4", "", graph.floats("twice", [1.0, 1.0, 2.0, 2.0])], "b8.up", mode="nearest")
    kernel = graph.weights.normal("synthesis.b8", (c8, c4, 3, 3), 0.3)
    graph.add("Conv", ["b8.up", kernel], "b8.conv", pads=[1, 1, 1, 1])
    graph.slice_ws(2, 3, "style.8")
    graph.add("MatMul", ["style.8", graph.weights.normal("synthesis.b8.affine", (W_DIM, c8), 0.8)], "b8.style")
    graph.add("Reshape", ["b8.style", graph.ints("b8.shape", [-1, c8, 1, 1])], "b8.scale")
    graph.add("Add", ["b8.conv", "b8.scale"], "b8.sum")
    graph.add("LeakyRelu", ["b8.sum"], "tap_r8", alpha=0.2)
    graph.add("Conv", ["tap_r8", graph.weights.normal("synthesis.torgb", (3, c8, 1, 1), 0.3)], "rgb.small")
    _resize(graph, "rgb.small", "rgb.large", 3, size)
    graph.slice_ws(3, 4, "style.rgb")
    graph.add("MatMul", ["style.rgb", graph.weights.normal("synthesis.torgb.bias", (W_DIM, 3), 0.2)], "rgb.bias")
    graph.add("Reshape", ["rgb.bias", graph.ints("rgb.bias.shape", [-1, 3, 1, 1])], "rgb.shift")
    graph.add("Add", ["rgb.large", "rgb.shift"], "rgb")
    graph.add("Mul", ["rgb", graph.floats("rgb.gain", [127.5])], "rgb.gained")
    graph.add("Add", ["rgb.gained", graph.floats("rgb.offset", [128.0])], "rgb.byte")
    graph.add("Clip", ["rgb.byte", graph.scalar("rgb.low", 0.0), graph.scalar("rgb.high", 255.0)], "rgb.clipped")
    graph.add("Transpose", [graph.add("Floor", ["rgb.clipped"], "rgb.floor")], "rgb.hwc", perm=[0, 2, 3, 1])
    graph.add("Cast", ["rgb.hwc"], "image", to=TensorProto.UINT8)
    _add_finite(graph, "rgb", 4, "synthesis.finite")


def _resize(graph: _Graph, source: str, output: str, channels: int, size: int) -> str:
    """Bilinear, align_corners false, to [N, channels, size, size]."""
    graph.add("Shape", [source], f"{output}.batch", start=0, end=1)
    rest = graph.ints(f"{output}.rest", [channels, size, size])
    graph.add("Concat", [f"{output}.batch", rest], f"{output}.sizes", axis=0)
    return graph.add("Resize", [source, "", "", f"{output}.sizes"], output, mode="linear")


def _add_finite(graph: _Graph, source: str, rank: int, output: str) -> str:
    """[N] bool: every value of the sample is finite (x * 0 is NaN otherwise)."""
    graph.add("Mul", [source, graph.floats("zero", [0.0])], f"{output}.zeros")
    axes = graph.ints(f"{output}.axes", list(range(1, rank)))
    graph.add("ReduceSum", [f"{output}.zeros", axes], f"{output}.sum", keepdims=0)
    return graph.add("Equal", [f"{output}.sum", graph.floats("zero", [0.0])], output)


def _add_interpreter(graph: _Graph, shape: TinyShape) -> None:
    """Taps -> label, uncertainty_map, (keypoints), finite: members in one pass, resized after the projection."""
    size, C = shape.image_size, shape.num_classes
    planes = []
    for resolution, channels in TAPS.items():
        weight = graph.weights.normal(f"interpreter.r{resolution}", (MEMBERS * HIDDEN, channels, 1, 1), 0.8)
        graph.add("Conv", [f"tap_r{resolution}", weight], f"projection.{resolution}")
        planes.append(
            _resize(graph, f"projection.{resolution}", f"planes.{resolution}", MEMBERS * HIDDEN, size),
        )
    graph.add("Relu", [graph.add("Sum", planes, "hidden.sum")], "hidden")
    weight = graph.weights.normal("interpreter.layer2", (MEMBERS * C, HIDDEN, 1, 1), 1.5)
    graph.add("Conv", ["hidden", weight], "logits.flat", group=MEMBERS)
    graph.add("Reshape", ["logits.flat", graph.ints("logits.shape", [-1, MEMBERS, C, size, size])], "logits")
    graph.add("Softmax", ["logits"], "probs", axis=2)
    _add_vote(graph, C)
    _add_uncertainty(graph)
    _add_finite(graph, "logits", 5, "interpreter.finite")
    if shape.keypoints:
        _add_keypoints(graph, shape)


def _add_vote(graph: _Graph, num_classes: int) -> None:
    """Majority vote, lowest class wins a tie: argmax of votes * C + (C - 1 - class)."""
    graph.add("ArgMax", ["probs"], "choice", axis=2, keepdims=0)  # [N, M, H, W]
    depth = graph.weights.constant("vote.depth", np.array(num_classes, dtype=np.int64))
    graph.add("OneHot", ["choice", depth, graph.floats("vote.values", [0.0, 1.0])], "choice.onehot", axis=2)
    graph.add("ReduceSum", ["choice.onehot", graph.ints("axis_1", [1])], "votes", keepdims=0)  # [N, C, H, W]
    graph.add("Mul", ["votes", graph.floats("vote.scale", [float(num_classes)])], "votes.scaled")
    order = np.arange(num_classes - 1, -1, -1, dtype=np.float32).reshape(1, num_classes, 1, 1)
    graph.add("Add", ["votes.scaled", graph.weights.constant("vote.order", order)], "votes.ordered")
    graph.add("ArgMax", ["votes.ordered"], "vote", axis=1, keepdims=0)
    graph.add("Cast", ["vote"], "label", to=TensorProto.UINT8)


def _add_uncertainty(graph: _Graph) -> None:
    """JS divergence H(mean p) - mean H(p), clamped at 0, as float16."""
    graph.add("ReduceMean", ["probs", graph.ints("axis_1", [1])], "probs.mean", keepdims=0)
    for source, axis, output in (("probs.mean", 1, "entropy.of_mean"), ("probs", 2, "entropy.members")):
        graph.add("Max", [source, graph.floats("tiny", [1e-12])], f"{output}.safe")
        graph.add("Mul", [source, graph.add("Log", [f"{output}.safe"], f"{output}.log")], f"{output}.terms")
        graph.add("ReduceSum", [f"{output}.terms", graph.ints(f"axis_{axis}", [axis])], f"{output}.sum", keepdims=0)
        graph.add("Neg", [f"{output}.sum"], output)
    graph.add("ReduceMean", ["entropy.members", graph.ints("axis_1", [1])], "entropy.mean", keepdims=0)
    graph.add("Relu", [graph.add("Sub", ["entropy.of_mean", "entropy.mean"], "js")], "js.clamped")
    graph.add("Cast", ["js.clamped"], "uncertainty_map", to=TensorProto.FLOAT16)


def _add_keypoints(graph: _Graph, shape: TinyShape) -> None:
    """Peak of a heatmap: x, y at pixel centres, its sigmoid, and whether that reaches one half."""
    K, size = shape.keypoints, shape.image_size
    graph.add("Conv", ["tap_r8", graph.weights.normal("keypoints.head", (K, TAPS[8], 1, 1), 1.0)], "heat.small")
    _resize(graph, "heat.small", "heat", K, size)
    graph.add("Reshape", ["heat", graph.ints("heat.shape", [-1, K, size * size])], "heat.flat")
    graph.add("ArgMax", ["heat.flat"], "peak", axis=2, keepdims=1)
    width = graph.ints("heat.width", [size])
    for name, op in (("x", "Mod"), ("y", "Div")):
        graph.add("Cast", [graph.add(op, ["peak", width], f"peak.{name}")], f"peak.{name}.float", to=TensorProto.FLOAT)
        graph.add("Add", [f"peak.{name}.float", graph.floats("half", [0.5])], f"point.{name}")
    graph.add("ReduceMax", ["heat.flat", graph.ints("axis_2", [2])], "peak.value", keepdims=1)
    graph.add("Sigmoid", ["peak.value"], "point.score")
    graph.add("GreaterOrEqual", ["point.score", graph.floats("half", [0.5])], "point.seen")
    graph.add("Cast", ["point.seen"], "point.visible", to=TensorProto.FLOAT)
    graph.add("Concat", ["point.x", "point.y", "point.score", "point.visible"], "keypoints", axis=2)


def _value(name: str, dtype: int, dims: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def _mapping_inputs(shape: TinyShape) -> list[onnx.ValueInfoProto]:
    inputs = [_value("z", TensorProto.FLOAT, ["N", Z_DIM])]
    if shape.c_dim:
        inputs.append(_value("c", TensorProto.FLOAT, ["N", shape.c_dim]))
    return [*inputs, _value("truncation_psi", TensorProto.FLOAT, ["N"])]


def _taps() -> list[onnx.ValueInfoProto]:
    return [_value(f"tap_r{r}", TensorProto.FLOAT, ["N", channels, r, r]) for r, channels in TAPS.items()]


def _labels(shape: TinyShape) -> list[onnx.ValueInfoProto]:
    size = shape.image_size
    values = [
        _value("label", TensorProto.UINT8, ["N", size, size]),
        _value("uncertainty_map", TensorProto.FLOAT16, ["N", size, size]),
    ]
    if shape.keypoints:
        values.append(_value("keypoints", TensorProto.FLOAT, ["N", shape.keypoints, 4]))
    return values


def _save(
    path: Path,
    graph: _Graph,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    places: dict[str, tuple[int, int]],
) -> None:
    used = {name for node in graph.nodes for name in node.input}
    initializers = []
    for name, array in graph.weights.arrays.items():
        if name not in used:
            continue
        if array.nbytes < 256:  # shapes and scalars stay inside, so that shape inference can read them
            initializers.append(onnx.numpy_helper.from_array(array, name))
            continue
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        offset, length = places[name]
        for key, value in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        initializers.append(tensor)
    built = helper.make_graph(graph.nodes, path.stem, inputs, outputs, initializers)
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))


def write_graphs(root: Path, shape: TinyShape, seed: int) -> None:
    """Writes mapping.onnx, synthesis.onnx, interpreter.onnx, model.onnx and their weights.bin into `root`."""
    weights = _Weights(seed)
    mapping, synthesis, interpreter, model = (_Graph(weights) for _ in range(4))
    _add_mapping(mapping, shape)
    _add_synthesis(synthesis, shape)
    synthesis.add("Identity", ["synthesis.finite"], "finite")
    _add_interpreter(interpreter, shape)
    interpreter.add("Identity", ["interpreter.finite"], "finite")
    _add_mapping(model, shape)
    _add_synthesis(model, shape)
    _add_interpreter(model, shape)
    model.add("And", ["synthesis.finite", "interpreter.finite"], "finite")

    places = weights.write(root / WEIGHTS_FILE)
    ws = _value("ws", TensorProto.FLOAT, ["N", NUM_WS, W_DIM])
    image = _value("image", TensorProto.UINT8, ["N", shape.image_size, shape.image_size, 3])
    finite = _value("finite", TensorProto.BOOL, ["N"])
    _save(root / "mapping.onnx", mapping, _mapping_inputs(shape), [ws], places)
    _save(root / "synthesis.onnx", synthesis, [ws], [image, *_taps(), finite], places)
    _save(root / "interpreter.onnx", interpreter, _taps(), [*_labels(shape), finite], places)
    _save(root / "model.onnx", model, _mapping_inputs(shape), [image, *_labels(shape), finite], places)
