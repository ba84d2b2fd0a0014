"""Print where the compiled RTL of a configuration is, `python npu_model.py Q`; compile it when it is not there."""

import sys

from convoy.driver.devices.native import NativeDevice
from convoy.spec.config import load_config

if __name__ == "__main__":
    device = NativeDevice(load_config(sys.argv[1]), progress=lambda text: print(text, file=sys.stderr))
    print(device.library)
    device.close()
