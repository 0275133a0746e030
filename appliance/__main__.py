"""Run as ``python -m appliance``."""

from appliance.cli.main import main

if __name__ == "__main__":
    main()
