"""Sets that the course makes: rendered motion, and clips cut from Big Buck Bunny."""

from vmae.course.making.film import FILM, FilmSpec, choose_clips, render_film
from vmae.course.making.motion import render, render_set
from vmae.course.making.pictures import random_crop
