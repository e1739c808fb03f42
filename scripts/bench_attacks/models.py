"""Three differently built classifiers of the demo images, and their TorchScript files.

Every module takes N x 3 x H x W images in 8-bit levels 0..255 and gives logits: the preprocessing is inside, so
that all attacks and the verifier see the same function of the same pixels.
"""

import pathlib

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

CLASSES = 10
NAMES = ("demo", "resnet", "vit")


def normalised(x):
    return (x / 255.0 - 0.5) / 0.25


class Demo(nn.Module):
    """The embedded demo network, from its safetensors file (64 x 64 images need no resizing)."""

    def __init__(self):
        super().__init__()
        shapes = [(3, 24, 5, 2, 2), (24, 48, 3, 2, 1), (48, 96, 3, 2, 1), (96, 128, 3, 1, 1)]
        self.features = nn.ModuleList(nn.Conv2d(i, o, k, s, p) for i, o, k, s, p in shapes)
        self.classifier = nn.Linear(128, CLASSES)

    def forward(self, x):
        x = normalised(x)
        for layer in self.features:
            x = F.relu(layer(x))
        return self.classifier(x.mean((2, 3)))


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm around a shortcut."""

    def __init__(self, width_in, width, stride):
        super().__init__()
        self.one = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.norm_one = nn.BatchNorm2d(width)
        self.two = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm_two = nn.BatchNorm2d(width)
        same = width_in == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, x):
        y = F.relu(self.norm_one(self.one(x)))
        return F.relu(self.norm_two(self.two(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A small residual network."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1), Block(32, 64, 2))
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(normalised(x))))
        return self.head(self.blocks(x).mean((2, 3)))


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm_one, self.norm_two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm_one(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.softmax(q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5, dim=-1) @ v
        x = x + self.project(attended.transpose(1, 2).reshape(n, t, c))
        return x + self.down(F.gelu(self.up(self.norm_two(x))))


class ViT(nn.Module):
    """A small vision transformer: 8 x 8 patches of 64 x 64 images."""

    def __init__(self, width=96, depth=4, heads=4):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.position = nn.Parameter(torch.randn(1, 64, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.patches(normalised(x)).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.layers(x)).mean(1))


def read(path):
    """A PNG as 3 x H x W levels."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def folder(path):
    """All images INDEX-CLASS.png of a folder, with their classes."""
    paths = sorted(pathlib.Path(path).glob("*.png"))
    classes = torch.tensor([int(p.stem.split("-")[1]) for p in paths])
    return paths, torch.stack([read(p) for p in paths]), classes


def train(model, images, classes, epochs, seed):
    torch.manual_seed(seed)
    model.train()
    batch, steps = 64, epochs * (len(images) // 64)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    done = 0
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for at in range(0, len(images) - batch + 1, batch):
            take = order[at : at + batch]
            x = images[take].float()
            if done % 2:
                x = x.flip(3)
            loss = F.cross_entropy(model(x), classes[take], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            done += 1
    return model.eval()


def get(name, cache, weights, images):
    """The model `name`, trained where it is not in `cache` yet; `images` gives what to train on."""
    if name == "demo":
        model = Demo()
        model.load_state_dict(load_file(weights))
    else:
        model = {"resnet": ResNet, "vit": ViT}[name]()
        kept = pathlib.Path(cache) / f"{name}.weights.pt"
        if kept.exists():
            model.load_state_dict(torch.load(kept, weights_only=True))
        else:
            _, x, y = images()
            train(model, x, y, epochs=12 if name == "vit" else 6, seed=7)
            torch.save(model.state_dict(), kept)
    model = model.eval().requires_grad_(False)
    script = pathlib.Path(cache) / f"{name}.pt"
    torch.jit.freeze(torch.jit.trace(model, torch.full((2, 3, 64, 64), 128.0))).save(str(script))
    return model, script
