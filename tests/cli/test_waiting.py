"""What happens to a command that waits: Ctrl-C, a server that is killed, a terminal."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading

from plane import PATIENCE_S, SHARDMAX, wait_until

LONG = 2_000_000_000


def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(plane):
    waiting = plane.start("submit", "--wait", plane.spec("left", steps=LONG))
    job = waiting.stdout.readline().strip()
    plane.wait_for_step(job, 1)
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=PATIENCE_S)
    assert waiting.returncode == 130, err
    assert f"shardmax watch {job}" in err and f"shardmax stop {job}" in err
    assert plane.job(job)["state"] == "RUNNING"
    plane.run("stop", job, "--wait", expect=4)


def test_a_server_that_is_killed_is_waited_for(plane):
    waiting = plane.start("submit", "--wait", plane.spec("survivor", steps=LONG))
    job = waiting.stdout.readline().strip()
    plane.wait_for_step(job, 1)
    following = plane.start("logs", job, "--follow", "--json")
    plane.server.end()
    told = []
    reader = threading.Thread(target=lambda: told.extend(waiting.stderr))
    reader.start()
    wait_until(lambda: any("trying to reach it again" in line for line in told), "the command to notice")
    plane.server.start()
    wait_until(lambda: any("connected again" in line for line in told), "the command to connect again")
    reached = plane.job(job).get("progress", {}).get("step", 0)
    plane.wait_for_step(job, reached + 1)
    plane.run("stop", job, "--wait", expect=4)
    assert waiting.wait(timeout=PATIENCE_S) == 4
    reader.join()
    out, _ = following.communicate(timeout=PATIENCE_S)
    assert following.returncode == 0
    sequences = [int(number) for number in re.findall(r'"sequence":"(\d+)"', out)]
    assert sequences == list(range(1, len(sequences) + 1))


def test_a_server_that_stays_away_is_given_up(plane):
    job = plane.run("submit", plane.spec("orphan", steps=LONG)).out.strip()
    waiting = plane.start("watch", job, "--reconnect_s=1")
    assert waiting.stdout.readline()
    plane.server.end()
    _, err = waiting.communicate(timeout=PATIENCE_S)
    plane.server.start()
    assert waiting.returncode == 3, err
    assert f"shardmax watch {job}" in err
    plane.run("stop", job, "--wait", expect=4)


def run_on_terminal(plane, *arguments, columns=100, **env):
    """What the command draws on a terminal, and its exit code."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([str(SHARDMAX), *map(str, arguments)], stdin=slave, stdout=slave, stderr=slave,
                               cwd=plane.folder, env=plane.environment(TERM="xterm", **env))
    os.close(slave)
    drawn = b""
    while True:
        try:
            piece = os.read(master, 1 << 16)
        except OSError:  # The other end is closed.
            break
        if not piece:
            break
        drawn += piece
    os.close(master)
    return drawn.decode(), process.wait(timeout=PATIENCE_S)


def test_a_terminal_gets_a_bar_that_is_drawn_over_and_never_wraps(plane):
    drawn, code = run_on_terminal(plane, "submit", "--wait", plane.spec("drawn", steps=3000), columns=90)
    assert code == 0, drawn
    frames = [re.sub(r"\x1b\[[0-9;]*[mK]", "", frame) for frame in drawn.split("\r")]
    bars = [frame for frame in frames if re.match(r"\[[#.]{12}\] drawn-\d+ RUNNING  step ", frame)]
    assert bars, drawn
    assert all(len(frame.rstrip("\n")) < 90 for frame in bars)
    assert "\x1b[36m" in drawn and "\x1b[32m" in drawn  # Colours of RUNNING and SUCCEEDED.


def test_no_color_is_respected(plane):
    drawn, _ = run_on_terminal(plane, "list", NO_COLOR="1")
    assert "\x1b" not in drawn
    drawn, _ = run_on_terminal(plane, "list")
    assert "\x1b[1m" in drawn


def test_without_a_terminal_there_are_plain_lines(plane):
    waited = plane.run("submit", "--wait", plane.spec("plain", steps=50))
    assert "\x1b" not in waited.out + waited.err and "\r" not in waited.err
