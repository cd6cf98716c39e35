"""timm's own VisionTransformer, as a process of its own (torch and tensorflow in one are more than some machines bear).

python timm_logits.py load|make FILE.safetensors IMAGES.npy LOGITS.npy '{"act_layer": "gelu", ...}'

load: takes the parameters of FILE. make: makes some, noise on all of them, and writes them to FILE. IMAGES are in [-1, 1].
"""

import json
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer


def main(command, file, images, logits, settings):
    model = VisionTransformer(**json.loads(settings)).eval()
    if command == "load":
        model.load_state_dict(load_file(file))
    else:
        torch.manual_seed(5)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, file)
    with torch.no_grad():
        np.save(logits, model(torch.from_numpy(np.load(images).transpose(0, 3, 1, 2).copy())).numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
