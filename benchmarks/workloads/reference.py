"""The reference algorithm, as its program does it: upsample each tap, concatenate, one MLP after the other, vote, JS.

A worker; torch alone, nothing of the fused forms. With `--compiled` torch.compile gets the part behind the generator.

P pixels, D features, M members, C classes.
"""

import argparse
import itertools
import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document
from benchmarks.workloads.answers import RunAnswer, save_labels
from benchmarks.workloads.devices import DEVICES, finish, open_device, peak_device_bytes
from benchmarks.workloads.floors import count_generator, count_interpreter, measure_rates
from benchmarks.workloads.parts import make_generator, make_interpreter
from benchmarks.workloads.shapes import WORKLOADS, Workload
from labelmint.addresses import latents
from labelmint_export.interpreter.ensemble import Interpreter


class PixelClassifier(nn.Module):
    """One member, as DatasetGAN's `pixel_classifier`: Linear, ReLU, BatchNorm, Linear, ReLU, BatchNorm, Linear."""

    def __init__(self, interpreter: Interpreter, member: int) -> None:
        super().__init__()
        config, ensemble = interpreter.config, interpreter.classifiers
        h1, h2 = config.hidden_widths
        widths = (config.num_features, h1, h2, config.num_classes)
        linears = [nn.Linear(low, high) for low, high in itertools.pairwise(widths)]
        norms = [nn.BatchNorm1d(h1), nn.BatchNorm1d(h2)]
        with torch.no_grad():
            for linear, source in zip(linears, (ensemble.linear1, ensemble.linear2, ensemble.linear3), strict=True):
                linear.weight.copy_(source.weight[member])
                linear.bias.copy_(source.bias[member])
            for norm, of_all in zip(norms, (ensemble.norm1, ensemble.norm2), strict=True):
                norm.weight.copy_(of_all.scale[member])
                norm.bias.copy_(of_all.shift[member])
                assert norm.running_mean is not None
                assert norm.running_var is not None
                norm.running_mean.copy_(of_all.mean[member])
                norm.running_var.copy_(of_all.variance[member])
        self.layers = nn.Sequential(linears[0], nn.ReLU(), norms[0], linears[1], nn.ReLU(), norms[1], linears[2]).eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map float32 [P, D] to logits [P, C]."""
        logits: torch.Tensor = self.layers(pixels)
        return logits


class ReferenceLabels(nn.Module):
    """Taps of one picture -> labels and divergence.

    Args:
        workload: Says which rows are kept.
        interpreter: Whose members these are.
    """

    def __init__(self, workload: Workload, interpreter: Interpreter) -> None:
        super().__init__()
        self.num_classes = interpreter.config.num_classes
        self.names = [tap.name for tap in interpreter.config.taps]
        self.side = workload.label_resolution
        scale = workload.label_resolution / workload.resolution
        self.rows = slice(int(workload.first_row * scale), int((workload.first_row + workload.num_rows) * scale))
        self.members = nn.ModuleList(PixelClassifier(interpreter, m) for m in range(interpreter.config.num_members))

    def forward(self, taps: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels uint8 [P] and divergence float32 [P] of float32 [1, C_r, r, r] each."""
        size, first = (self.side, self.side), 0
        dim, like = sum(taps[name].shape[1] for name in self.names), taps[self.names[0]]
        features = torch.empty(dim, *size, dtype=like.dtype, device=like.device)
        for name in self.names:
            raised = functional.interpolate(taps[name], size, mode="bilinear", align_corners=False)[0]
            features[first : first + len(raised)] = raised
            first += len(raised)
        pixels = features[:, self.rows].reshape(dim, -1).t()  # [P, D]
        nothing = torch.zeros((), device=like.device)
        votes, mean, entropy = [], nothing, nothing
        for member in self.members:
            logits = member(pixels)
            votes.append(logits.argmax(dim=1))
            probs = logits.softmax(dim=1)
            mean = mean + probs / len(self.members)
            entropy = entropy - torch.special.xlogy(probs, probs).sum(dim=1) / len(self.members)
        label = most_frequent(torch.stack(votes), self.num_classes)
        divergence = -torch.special.xlogy(mean, mean).sum(dim=1) - entropy
        return label.to(torch.uint8), divergence.clamp(min=0)


def most_frequent(votes: torch.Tensor, num_classes: int) -> torch.Tensor:
    """The class with the most votes, the lowest of those that tie; `mode` promises that on no device.

    Args:
        votes: int64 [M, P].
        num_classes: C.

    Returns:
        int64 [P].
    """
    counts = torch.zeros(votes.shape[1], num_classes, dtype=torch.int64, device=votes.device)
    counts.scatter_add_(1, votes.t(), torch.ones_like(votes.t()))  # [P, C]
    order = torch.arange(num_classes - 1, -1, -1, device=votes.device)
    return (counts * num_classes + order).argmax(dim=1)


def _prepare() -> tuple[Document, Answer]:
    parser = argparse.ArgumentParser(description="Label pictures of a workload by the reference algorithm.")
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    arguments = parser.parse_args()
    device = open_device(arguments.device)
    workload = WORKLOADS[arguments.workload]
    generator = make_generator(workload)
    interpreter = make_interpreter(workload, generator)
    operations = count_generator(generator)
    generator, labels = generator.to(device), ReferenceLabels(workload, interpreter).to(device)
    run = torch.compile(labels) if arguments.compiled else labels
    weights = sum(p.numel() for member in labels.members for p in member.parameters() if p.dim() == 2)
    pixels = (labels.rows.stop - labels.rows.start) * labels.side
    description = {
        "batch_size": 1,
        "rates": measure_rates(device),
        "generator_operations": operations,
        "interpreter_operations": count_interpreter(interpreter.config, workload),
        "reference_operations": 2 * weights * pixels,
    }

    @torch.inference_mode()
    def answer(request: Document) -> Document:
        answers, kept = [], []
        for index in range(request["first_index"], request["first_index"] + request["count"]):
            z = torch.from_numpy(latents(request["seed"], np.array([index], dtype=np.uint64), generator.config.z_dim))
            finish(device)
            began = time.perf_counter_ns()
            output = generator.synthesis(generator.mapping(z.to(device)), "const")
            finish(device)
            painted = time.perf_counter_ns()
            label, divergence = (array.cpu() for array in run(output.features))
            done = time.perf_counter_ns()
            answers.append(RunAnswer(total_ns=done - began, stages_ns={"generator": painted - began}))
            if request["labels"]:
                kept.append((label.numpy(), divergence.numpy()))
        save_labels(request, kept)
        return {
            "runs": [one.document() for one in answers],
            "peak_rss_bytes": peak_rss_bytes(),
            "peak_device_bytes": peak_device_bytes(device),
        }

    return description, answer


if __name__ == "__main__":
    answer_requests(_prepare)
