"""Reading and writing the rows of one tenant."""

from tenantry.data.manager import DataManager
from tenantry.data.runtime import Admission, Runtime

__all__ = ["Admission", "DataManager", "Runtime"]
