"""What all tests share: none reads or writes the tables, weights and measurements of whoever runs them."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("SCALER_DATA_DIR")
    os.environ["SCALER_DATA_DIR"] = str(tmp_path_factory.mktemp("user"))
    yield
    if before is None:
        del os.environ["SCALER_DATA_DIR"]
    else:
        os.environ["SCALER_DATA_DIR"] = before
