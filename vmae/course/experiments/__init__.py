"""The papers' claims, tested at a small scale.

`values`, `verdict`, `CLAIMS` and `PREFERRED` are those of the first edition, which lessons 06 and 08
show.
"""

from vmae.course.experiments.first_edition import CLAIMS, PREFERRED, values, verdict
