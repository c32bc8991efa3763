"""The papers' claims, tested at a small scale: `vmae experiments`.

sets      the clips        table      the experiments, as data     copier    baselines without training
measure   run what is missing         results    stamped JSON      verdicts  paired statistics

`values`, `verdict`, `CLAIMS` and `PREFERRED` are those of the first edition, which lessons 06 and 08
show.
"""

from vmae.course.experiments.first_edition import CLAIMS, PREFERRED, values, verdict
