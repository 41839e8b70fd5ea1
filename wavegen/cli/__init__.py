"""The command line: parse, call, print; a module for each command. What a command does is done elsewhere."""

from wavegen.cli import bench, config, evaluate, export, forecast, generate, inspect, train
from wavegen.cli.app import Command, app

__all__ = ["app"]

for command in (  # in the order of --help
    train.train,
    generate.generate,
    forecast.forecast,
    evaluate.evaluate,
    inspect.inspect,
    bench.bench,
    export.export,
    config.config,
):
    app.command(cls=Command)(command)
