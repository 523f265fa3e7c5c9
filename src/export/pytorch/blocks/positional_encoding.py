class PositionalEncoding(nn.Module):
    """A learned number for every channel of every position."""

    def __init__(self, channels, height, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, height, width))

    def forward(self, x):
        return x + self.weight
