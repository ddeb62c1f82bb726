"""Residual networks (He et al. 2016), with torchvision's names and state keys."""

from __future__ import annotations

from telegrad.errors import GraphError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn import functional as F
from telegrad.nn import init
from telegrad.nn.container import Sequential
from telegrad.nn.conv import Conv2d
from telegrad.nn.linear import Linear
from telegrad.nn.module import Module
from telegrad.nn.norm import BatchNorm2d
from telegrad.nn.pooling import AdaptiveAvgPool2d, MaxPool2d
from telegrad.tensor import Tensor


def _conv3x3(inputs: int, outputs: int, stride: int = 1, groups: int = 1, *, dtype: DType) -> Conv2d:
    return Conv2d(inputs, outputs, 3, stride=stride, padding=1, groups=groups, bias=False, dtype=dtype)


def _conv1x1(inputs: int, outputs: int, stride: int = 1, *, dtype: DType) -> Conv2d:
    return Conv2d(inputs, outputs, 1, stride=stride, bias=False, dtype=dtype)


class BasicBlock(Module):
    """Two convolutions of 3 x 3 beside the identity, or beside ``downsample`` where the shape changes."""

    expansion = 1

    def __init__(
        self, inplanes: int, planes: int, stride: int, downsample: Module | None, groups: int, width: int, dtype: DType
    ) -> None:
        super().__init__()
        if groups != 1 or width != 64:
            raise GraphError("ResNet: groups and width_per_group go with Bottleneck blocks only")
        self.conv1 = _conv3x3(inplanes, planes, stride, dtype=dtype)
        self.bn1 = BatchNorm2d(planes, dtype=dtype)
        self.conv2 = _conv3x3(planes, planes, dtype=dtype)
        self.bn2 = BatchNorm2d(planes, dtype=dtype)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """x[N, C, H, W] -> [N, planes, H / stride, W / stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(Module):
    """Convolutions of 1 x 1, 3 x 3 (which has the stride, as in torchvision) and 1 x 1 beside the identity."""

    expansion = 4

    def __init__(
        self, inplanes: int, planes: int, stride: int, downsample: Module | None, groups: int, width: int, dtype: DType
    ) -> None:
        super().__init__()
        inner = planes * width // 64 * groups
        self.conv1 = _conv1x1(inplanes, inner, dtype=dtype)
        self.bn1 = BatchNorm2d(inner, dtype=dtype)
        self.conv2 = _conv3x3(inner, inner, stride, groups, dtype=dtype)
        self.bn2 = BatchNorm2d(inner, dtype=dtype)
        self.conv3 = _conv1x1(inner, planes * self.expansion, dtype=dtype)
        self.bn3 = BatchNorm2d(planes * self.expansion, dtype=dtype)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """x[N, C, H, W] -> [N, 4 planes, H / stride, W / stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(Module):
    """Images to scores of classes.

    ::

        model = models.resnet18(num_classes=10)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

        @tg.function
        def step(images, labels):                           # [N, 3, H, W], [N]
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.minimize(loss)
            return loss
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, int, int, int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        self.inplanes, self.groups, self.base_width = 64, groups, width_per_group
        self.conv1 = Conv2d(3, 64, 7, stride=2, padding=3, bias=False, dtype=dtype)
        self.bn1 = BatchNorm2d(64, dtype=dtype)
        self.maxpool = MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._layer(block, 64, layers[0], 1, dtype)
        self.layer2 = self._layer(block, 128, layers[1], 2, dtype)
        self.layer3 = self._layer(block, 256, layers[2], 2, dtype)
        self.layer4 = self._layer(block, 512, layers[3], 2, dtype)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(512 * block.expansion, num_classes, dtype=dtype)
        for module in self.modules():
            if isinstance(module, Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):  # Goyal et al. 2017, 5.1
                init.zeros_((module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight)

    def _layer(
        self, block: type[BasicBlock] | type[Bottleneck], planes: int, blocks: int, stride: int, dtype: DType
    ) -> Sequential:
        outputs = planes * block.expansion
        downsample: Module | None = None
        if stride != 1 or self.inplanes != outputs:
            project = _conv1x1(self.inplanes, outputs, stride, dtype=dtype)
            downsample = Sequential(project, BatchNorm2d(outputs, dtype=dtype))
        found = [block(self.inplanes, planes, stride, downsample, self.groups, self.base_width, dtype)]
        self.inplanes = outputs
        for _ in range(1, blocks):
            found.append(block(outputs, planes, 1, None, self.groups, self.base_width, dtype))
        return Sequential(*found)

    def features(self, x: Tensor) -> Tensor:
        """x[N, 3, H, W] -> what the last blocks see, [N, 512 * expansion, H / 32, W / 32]."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x: Tensor) -> Tensor:
        """x[N, 3, H, W] -> scores[N, num_classes]."""
        return self.fc(self.avgpool(self.features(x)).flatten(1))


def resnet18(num_classes: int = 1000, zero_init_residual: bool = False, *, dtype: DType = types.float32) -> ResNet:
    """18 layers: 11.7 million parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, zero_init_residual, dtype=dtype)


def resnet34(num_classes: int = 1000, zero_init_residual: bool = False, *, dtype: DType = types.float32) -> ResNet:
    """34 layers: 21.8 million parameters."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, zero_init_residual, dtype=dtype)


def resnet50(num_classes: int = 1000, zero_init_residual: bool = False, *, dtype: DType = types.float32) -> ResNet:
    """50 layers: 25.6 million parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, zero_init_residual, dtype=dtype)


def resnet101(num_classes: int = 1000, zero_init_residual: bool = False, *, dtype: DType = types.float32) -> ResNet:
    """101 layers: 44.5 million parameters."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, zero_init_residual, dtype=dtype)


def resnet152(num_classes: int = 1000, zero_init_residual: bool = False, *, dtype: DType = types.float32) -> ResNet:
    """152 layers: 60.2 million parameters."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, zero_init_residual, dtype=dtype)


def resnext50_32x4d(num_classes: int = 1000, *, dtype: DType = types.float32) -> ResNet:
    """50 layers of 32 groups of 4 channels (Xie et al. 2017): 25.0 million parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, groups=32, width_per_group=4, dtype=dtype)


def resnext101_32x8d(num_classes: int = 1000, *, dtype: DType = types.float32) -> ResNet:
    """101 layers of 32 groups of 8 channels (Xie et al. 2017): 88.8 million parameters."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, groups=32, width_per_group=8, dtype=dtype)


def wide_resnet50_2(num_classes: int = 1000, *, dtype: DType = types.float32) -> ResNet:
    """50 layers, twice as wide inside (Zagoruyko, Komodakis 2016): 68.9 million parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, width_per_group=128, dtype=dtype)


def wide_resnet101_2(num_classes: int = 1000, *, dtype: DType = types.float32) -> ResNet:
    """101 layers, twice as wide inside (Zagoruyko, Komodakis 2016): 126.9 million parameters."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, width_per_group=128, dtype=dtype)
