class FeedForward(nn.Module):
    """Two linear layers on every position."""

    def __init__(self, channels):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.Identity(),
            nn.Linear(channels, channels),
        )

    def forward(self, x):
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention over all positions, then a feed-forward part, each added to its input."""

    def __init__(self, channels, heads, head_channels):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * heads * head_channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_channels, channels))
        self.ln1 = nn.LayerNorm(channels)
        self.ln2 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def attend(self, x):
        qkv = self.to_qkv(x).unflatten(-1, (3, self.heads, -1))  # [N, positions, 3, heads, channels]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x):
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        x = self.attend(self.ln1(x)) + x
        x = self.ff(self.ln2(x)) + x
        return x.transpose(1, 2).unflatten(2, (height, width))
