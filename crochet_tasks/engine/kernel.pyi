import numpy as np
from numpy.typing import NDArray

def total(numbers: NDArray[np.uint32]) -> int: ...
