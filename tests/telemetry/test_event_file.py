from event_files import read_events, read_messages

from mmcore.telemetry.event_file import EventFile


def test_what_is_written_is_read_by_the_messages_of_tensorboard() -> None:
    file = EventFile(wall_time=12.5)
    file.scalars({"loss": 0.5, "clock/samples_per_second": 1e6}, step=0, wall_time=13.0)
    file.scalars({"loss": -0.25}, step=300_000, wall_time=14.25)
    first, *events = read_messages(bytes(file.data))
    assert (first.file_version, first.wall_time) == ("brain.Event:2", 12.5)
    assert [event.wall_time for event in events] == [13.0, 14.25]
    assert read_events(bytes(file.data)) == [
        (0, {"loss": 0.5, "clock/samples_per_second": 1e6}),
        (300_000, {"loss": -0.25}),
    ]


def test_a_long_name_and_many_figures_take_lengths_of_several_bytes() -> None:
    figures = {f"{'x' * 200}/{number}": float(number) for number in range(50)}
    file = EventFile(wall_time=0.0)
    file.scalars(figures, step=1, wall_time=1.0)
    assert read_events(bytes(file.data)) == [(1, figures)]


def test_an_empty_file_is_one_that_tensorboard_opens() -> None:
    assert len(read_messages(bytes(EventFile(wall_time=1.0).data))) == 1
