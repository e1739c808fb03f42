"""What the parity scripts share: made-up weights, the models, the preprocessing, the reference run.

Default initialisations hide faults (a layer scale of 1e-6 hides its whole block, running statistics of 0
and 1 hide a missing normalisation): here every tensor is random, running variances positive.
"""

import math

import numpy as np
import timm
import torch
import torchvision
import torchvision.transforms.v2
from timm.models import efficientnet as effnet
from timm.models.swin_transformer import SwinTransformer
from torchvision.models import efficientnet as tv

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
MASK = (1 << 64) - 1


def made_up(name, shape):
    """A weight as a function of its name and place, the same as in model/src/zoo/tests.rs."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & MASK
    count = math.prod(shape)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    unit = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    if len(shape) == 1 and name.endswith(("running_var", ".weight", ".gamma")):
        value = 0.5 + unit
    elif len(shape) == 1:
        value = 0.2 * (2.0 * unit - 1.0)
    else:
        value = math.sqrt(3.0 / math.prod(shape[1:])) * (2.0 * unit - 1.0)
    return torch.from_numpy(value.astype(np.float32).reshape(shape))


def randomise(model):
    """Fills a model with made-up weights; gives its state in fp32, as a file would hold it."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7, dtype=torch.int64)
        else:
            state[name] = made_up(name, tuple(tensor.shape))
    model.load_state_dict(state, strict=True)
    model.eval()
    return state


class Case:
    """A model with its preprocessing: resize ('shortest' or 'squash', side), crop, mean and deviation."""

    def __init__(self, build, resize, crop, normal):
        self.build, self.resize, self.crop, self.normal = build, resize, crop, normal

    def prepare(self, x):
        """Levels 0..=255 to the network's input, by the libraries' own transforms on tensors."""
        functional = torchvision.transforms.v2.functional
        bicubic = torchvision.transforms.InterpolationMode.BICUBIC
        kind, side = self.resize
        size = [side] if kind == "shortest" else [side, side]
        x = functional.resize(x / 255.0, size, interpolation=bicubic, antialias=True)
        x = functional.center_crop(x, [self.crop, self.crop])
        return functional.normalize(x, *self.normal)


def timm_model(name, **options):
    return lambda: timm.create_model(name, pretrained=False, **options)


def tv_model(name):
    return lambda: torchvision.models.get_model(name, weights=None)


def tv_small(v2):
    """torchvision's EfficientNet with the stages of model/src/zoo/small.rs."""
    if v2:
        fused, plain = tv.FusedMBConvConfig, tv.MBConvConfig
        stages = [
            fused(1, 3, 1, 8, 8, 1), fused(4, 3, 2, 8, 16, 1), fused(4, 3, 2, 16, 24, 1),
            plain(4, 3, 2, 24, 40, 2), plain(6, 3, 1, 40, 48, 3), plain(6, 3, 2, 48, 80, 4), plain(6, 3, 1, 80, 128, 1),
        ]
        last = 1280
    else:
        wide = dict(width_mult=0.25, depth_mult=0.5)
        numbers = [(1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 2, 40, 80, 3),
                   (6, 5, 1, 80, 112, 3), (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1)]
        stages = [tv.MBConvConfig(*n, **wide) for n in numbers]
        last = None
    norm = lambda channels: torch.nn.BatchNorm2d(channels, eps=1e-3)
    return lambda: tv.EfficientNet(stages, 0.2, last_channel=last, num_classes=10, norm_layer=norm)


TF = dict(bn_eps=1e-3, pad_type="same", num_classes=10)

SMALL = {
    "small/tf_efficientnet_b": Case(
        lambda: effnet._gen_efficientnet("tf_efficientnet_b5", 0.25, 0.5, **TF), ("shortest", 66), 61, IMAGENET),
    "small/torchvision_efficientnet_b": Case(tv_small(False), ("shortest", 61), 61, IMAGENET),
    "small/tf_efficientnetv2": Case(
        lambda: effnet._gen_efficientnetv2_m("tf_efficientnetv2_m", 0.25, 0.2, **TF), ("squash", 64), 64, HALF),
    "small/torchvision_efficientnet_v2": Case(tv_small(True), ("shortest", 64), 64, HALF),
    "small/swin": Case(
        lambda: SwinTransformer(img_size=64, window_size=4, embed_dim=16, depths=(2, 2, 2), num_heads=(2, 4, 8),
                                num_classes=10), ("shortest", 70), 64, IMAGENET),
    "test_efficientnet.r160_in1k": Case(timm_model("test_efficientnet"), ("shortest", 168), 160, IMAGENET),
    "test_convnext.r160_in1k": Case(timm_model("test_convnext"), ("shortest", 168), 160, HALF),
    "test_vit.r160_in1k": Case(timm_model("test_vit"), ("shortest", 168), 160, HALF),
}

FULL = {
    "efficientnet_v2_l.imagenet1k_v1": Case(tv_model("efficientnet_v2_l"), ("shortest", 480), 480, HALF),
    "efficientnet_b5.imagenet1k_v1": Case(tv_model("efficientnet_b5"), ("shortest", 456), 456, IMAGENET),
    "tf_efficientnetv2_l.in21k_ft_in1k": Case(timm_model("tf_efficientnetv2_l"), ("squash", 480), 480, HALF),
    "tf_efficientnetv2_m.in21k_ft_in1k": Case(timm_model("tf_efficientnetv2_m"), ("squash", 480), 480, HALF),
    "tf_efficientnet_b5.ra_in1k": Case(timm_model("tf_efficientnet_b5"), ("shortest", 488), 456, IMAGENET),
    "convnext_small.fb_in1k": Case(timm_model("convnext_small"), ("shortest", 288), 288, IMAGENET),
    "vit_small_patch16_224.augreg_in21k_ft_in1k": Case(
        timm_model("vit_small_patch16_224"), ("shortest", 248), 224, HALF),
    "swin_tiny_patch4_window7_224.ms_in1k": Case(
        timm_model("swin_tiny_patch4_window7_224"), ("shortest", 248), 224, IMAGENET),
}


def image(height, width, seed):
    """A picture with edges, flat parts and noise: 1×3×H×W bytes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = 127 + 80 * np.sin(0.31 * x + 0.17 * y)[None] * np.array([1.0, 0.5, -0.7])[:, None, None]
    waves[:, height // 3 : height // 2, width // 4 : width // 2] = 255.0
    noisy = waves + rng.normal(0, 12, (3, height, width))
    return torch.from_numpy(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))[None]


def reference(case, model, x, cotangent):
    """Logits and input gradient of `sum(logits·cotangent)`, in the precision of `cotangent`."""
    leaf = x.to(cotangent.dtype).requires_grad_(True)
    logits = model.to(cotangent.dtype)(case.prepare(leaf))
    (gradient,) = torch.autograd.grad((logits * cotangent).sum(), leaf)
    return logits.detach(), gradient


def cotangent(classes, seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(1, classes)))
