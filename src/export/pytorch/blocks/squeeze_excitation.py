class SqueezeExcitation(nn.Module):
    """Scales every channel by a function of the means of all channels."""

    def __init__(self, channels, squeezed, stride):
        super().__init__()
        self.stride = stride
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x):
        gate = F.hardswish(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return (x * gate[:, :, None, None])[:, :, :: self.stride, :: self.stride]
