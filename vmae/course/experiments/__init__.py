"""The papers' claims, tested at a small scale: `vmae experiments`.

sets      the clips             table    the experiments, as data    arms      the runs they ask for
measure   run what is missing   copier   baselines without training  results   stamped JSON
labels    the experiment that fine-tunes, and tuning, which runs it
verdicts  paired statistics     figures  pictures                    report    the page about them

`values`, `verdict`, `CLAIMS` and `PREFERRED` are those of the first edition, which lesson 08 shows.
"""

from vmae.course.experiments import figures, results, table, verdicts
from vmae.course.experiments.first_edition import CLAIMS, PREFERRED, values, verdict
from vmae.course.experiments.verdicts import paired
