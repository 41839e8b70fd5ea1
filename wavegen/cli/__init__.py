"""The command line, a module for each command: it parses, calls the other packages, and prints."""

from wavegen.cli import bench, cache, config, evaluate, export, forecast, generate, inspect, report, train
from wavegen.cli.app import Command, app

__all__ = ["app"]

for command in (  # in the order of --help
    train.train,
    generate.generate,
    forecast.forecast,
    evaluate.evaluate,
    inspect.inspect,
    report.report,
    bench.bench,
    export.export,
    config.config,
    cache.cache,
):
    app.command(cls=inspect.InspectCommand if command is inspect.inspect else Command)(command)
