"""Get the encoder out of an autoencoder's checkpoint, as a `.pth` file.

python extract_encoder.py path/to/autoencoder_checkpoint.pth [--output encoder_weights.pth] [--verify]
    [--input_channels 1] [--latent_dim 768]

Without --output the file is beside the checkpoint, as `NAME_encoder.pth`. It is `gridloom extract --layout seed`.
"""

import sys

from gridloom.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:], "--layout", "seed"]))
