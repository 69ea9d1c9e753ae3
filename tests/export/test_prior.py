"""The mapping that learns where an autoencoder's pictures are, against distributions that are known."""

import pytest
import torch

from labelmint_export.errors import TrainingError
from labelmint_export.gan import descent, prior
from labelmint_export.gan.prior import Posterior, VelocityField, fit_field, fit_mapping, follow
from labelmint_export.generator.backbone import MappingNetwork
from labelmint_export.generator.config import GeneratorConfig
from labelmint_export.generator.layers import normalize_second_moment

DIM = 8
WIDTH = 64


def make_mapping() -> MappingNetwork:
    config = GeneratorConfig(resolution=8, channels={4: 4, 8: 4}, z_dim=DIM, w_dim=DIM, mapping_layers=4, hidden_dim=64)
    return MappingNetwork(config)


def make_clusters() -> Posterior:
    """A quarter of the pictures around (4, 0, ...), three quarters around (-1, 2, ...), with small clouds."""
    mean = torch.zeros(4000, DIM)
    mean[:1000, 0] = 4.0
    mean[1000:, 0] = -1.0
    mean[1000:, 1] = 2.0
    return Posterior(mean + 0.1 * torch.randn(4000, DIM), torch.full([4000, DIM], 0.2))


def test_constant_velocity_is_followed_exactly() -> None:
    field = VelocityField(DIM, WIDTH)
    with torch.no_grad():
        field.outward.bias.copy_(torch.arange(DIM) / 4)
    begin = torch.randn(5000, DIM)
    torch.testing.assert_close(follow(field, begin), begin + torch.arange(DIM) / 4, rtol=0, atol=1e-5)


def test_a_time_holds_for_the_vectors_that_follow_each_other() -> None:
    field = VelocityField(DIM, WIDTH)
    torch.nn.init.normal_(field.outward.weight)
    x, times = torch.randn(6, DIM), torch.tensor([0.2, 0.9])
    each = torch.cat([field(one[None], time[None]) for one, time in zip(x, times.repeat_interleave(3), strict=True)])
    torch.testing.assert_close(field(x, times), each)


def test_divergence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior, "FLOW_RATE", 100.0)
    monkeypatch.setattr(descent, "WARMUP_STEPS", 40)
    torch.manual_seed(0)
    with pytest.raises(TrainingError, match=r"velocity field ended at .* expected a descent") as caught:
        fit_field(make_clusters(), 60, WIDTH)
    assert caught.value.field == "prior_steps"


def test_paths_lead_to_a_normal_distribution() -> None:
    torch.manual_seed(0)
    spread = torch.linspace(0.2, 1.6, DIM)
    field, _ = fit_field(Posterior(torch.ones(1, DIM), spread[None]), 800, WIDTH)
    ends = follow(field, normalize_second_moment(torch.randn(4000, DIM)))
    torch.testing.assert_close(ends.mean(dim=0), torch.ones(DIM), rtol=0, atol=0.1)
    torch.testing.assert_close(ends.std(dim=0), spread, rtol=0.12, atol=0.03)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mapping_draws_clusters_in_their_shares(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mapping, posterior = make_mapping(), make_clusters()
    fit = fit_mapping(mapping, posterior, steps=3000, compute_dtype=dtype, width=WIDTH)
    assert fit.flow_loss < 1.0  # 2 if nothing was learned
    assert fit.mapping_error < 0.2  # between the clusters the path's end jumps
    with torch.no_grad():
        w = mapping.map_to_w(torch.randn(4000, DIM))
    first = w[:, 0] > 1.5
    # So small a field is rough: five seeds gave 0.16 to 0.25 after 3,000 steps, four 0.31 to 0.37 after 1,200.
    assert float(first.float().mean()) == pytest.approx(0.25, abs=0.1)
    for members, centre in ((first, (4.0, 0.0)), (~first, (-1.0, 2.0))):
        near = (w[members][:, :2] - torch.tensor(centre)).norm(dim=1) < 1.2  # of 5.4 between them
        assert float(near.float().mean()) > 0.75
    apart = 5.0  # along the first axis
    torch.testing.assert_close(mapping.w_avg, posterior.mean.mean(dim=0), rtol=0, atol=0.1 * apart)


def test_same_random_state_gives_the_same_mapping() -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        mapping, posterior = make_mapping(), make_clusters()
        fit_mapping(mapping, posterior, steps=5, compute_dtype=torch.bfloat16, width=WIDTH)
        made.append(mapping.state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
