"""A playlist under the name of a video leads neither to the network nor to another file."""

from __future__ import annotations

import socket

import pytest

from vmae import ROOT
from vmae.data.reading.player import VideoError
from vmae.data.reading.reader import open_video

SHOT = ROOT / "data" / "big_buck_bunny_shot.mp4"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{}'\n"


@pytest.mark.parametrize("playlist", [HLS, CONCAT], ids=["hls", "concat"])
@pytest.mark.parametrize("leads", ["to an address", "to a file"])
def test_a_playlist_is_no_video(playlist, leads, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/shot.mp4"
        path = tmp_path / "clip.mp4"
        path.write_text(playlist.format(address if leads == "to an address" else SHOT))
        with pytest.raises(VideoError, match="could not be opened as a video"):
            open_video(path)
        with pytest.raises(TimeoutError):  # nobody has called
            server.accept()
