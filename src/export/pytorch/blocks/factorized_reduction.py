class FactorizedReduction(nn.Module):
    """Halves height and width: two strided 1x1 convolutions on grids that are shifted by one pixel."""

    def __init__(self, inputs, outputs, norm):
        super().__init__()
        self.conv_1 = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(outputs) if norm else nn.Identity()

    def forward(self, x):
        x = F.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], 1))
