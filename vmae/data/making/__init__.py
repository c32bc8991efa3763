"""Sets that the course makes: rendered motion, and clips cut from Big Buck Bunny."""

from vmae.data.making.encode import write_video
from vmae.data.making.film import FILM, FilmSpec, choose_clips, render_film
from vmae.data.making.motion import (
    SIZES,
    MotionSpec,
    render,
    render_set,
    set_name,
    spec_named,
    with_sizes,
)
from vmae.data.making.pictures import random_crop
