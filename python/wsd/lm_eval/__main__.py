"""lm-evaluation-harness with the model `wsd`: `python -m wsd.lm_eval run --model wsd ...`."""

from . import main

if __name__ == "__main__":
    main()
