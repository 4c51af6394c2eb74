import pytest
import torch

from lorafit.engine.kernels import checked as kernels
from lorafit.engine.kernels.library import Library, candidates, library, load
from lorafit.engine.native import build


@pytest.fixture(scope="session", autouse=True)
def _compiled_kernels() -> None:
    """Builds the kernels when the checkout has none, or older ones than their sources."""
    sources = [*build.HERE.glob("*.cpp"), *build.HERE.glob("*.h"), build.HERE / "build.py"]
    newest = max(source.stat().st_mtime for source in sources)
    libraries = [build.library_path(name) for name in build.instruction_sets()]
    if any(not path.exists() or path.stat().st_mtime < newest for path in libraries):
        build.build()
    library.cache_clear()


@pytest.fixture(params=["twin", *candidates()])
def implementation(request: pytest.FixtureRequest, _compiled_kernels: None):
    """The kernels as PyTorch twins, and compiled for each instruction set this CPU has."""
    which: Library | None = None
    if request.param != "twin":
        which = load(build.library_path(request.param))
    with kernels.using(which):
        yield which


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
