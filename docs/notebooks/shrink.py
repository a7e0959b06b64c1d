r"""Store the pictures in notebooks with 64 colours, which makes them a third as large.

python docs/notebooks/shrink.py docs/notebooks/digits.ipynb
"""

import base64
import io
import json
import sys
from pathlib import Path

from PIL import Image


def smaller(png: str) -> str:
    r"""A picture in base64, the same with 64 colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(64)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


for path in map(Path, sys.argv[1:]):
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                output["data"]["image/png"] = smaller("".join(png))
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
