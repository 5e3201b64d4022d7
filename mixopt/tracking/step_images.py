"""Pictures of a step, as MLflow's page shows them: beside the charts, with a slider of steps.

MLflow finds them by the names of their files, and by a tag of the run
(`mlflow.MlflowClient.log_image`). Its own call makes a new name each time; here a picture has one,
so that sending it again replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mixopt.errors import RunError
from mixopt.system import shown_name

IMAGES = "images"  # MLflow's folder of them
FIGURES = "figures"  # of a run, which are of no step
IMAGES_TAG = {"mlflow.loggedImages": "True"}
SMALL = 256  # pixels of the longer side, for the page's overview; as MLflow has it


@contextmanager
def step_images(file: Path) -> Iterator[list[Path]]:
    """Give a picture and a small one under the names that MLflow looks for.

    Args:
        file: `<name>/<step>.png`, or a figure of a run: `figures/<name>.png`, which is of step 0.

    Raises:
        RunError: It is not named after a step, or is no picture.
    """
    from PIL import Image

    shown = shown_name(f"{file.parent.name}/{file.name}")
    of_step = file.parent.name != FIGURES
    if of_step and not file.stem.isdecimal():
        raise RunError(f"{shown}: is not named after a step")
    about, step = (file.parent.name, int(file.stem)) if of_step else (file.stem, 0)
    # A time would be another name for a picture that is drawn again.
    name = f"{about}+step+{step}+timestamp+0+mixopt"
    with TemporaryDirectory() as folder:
        large, small = Path(folder, f"{name}.png"), Path(folder, f"{name}+compressed.webp")
        try:
            large.write_bytes(file.read_bytes())
            with Image.open(large, formats=["PNG"]) as picture:
                picture.thumbnail((SMALL, SMALL))
                picture.save(small)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise RunError(f"{shown}: is no picture (.png)") from error
        yield [large, small]
