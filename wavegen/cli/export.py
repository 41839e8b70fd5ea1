"""`wavegen export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wavegen.cli.console import print_notice
from wavegen.cli.options import Source


def export(
    source: Source,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write: .safetensors for the weights, or .onnx for one sampling step.",
        ),
    ],
    precision: Annotated[str, typer.Option(help="Precision of the weights: float32 or bfloat16.")] = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Export a model for inference: its averaged weights, or one sampling step in ONNX.

    wavegen export runs/my_recordings -o model.safetensors --precision bfloat16 ;
    wavegen export runs/my_recordings -o step.onnx
    """
    from wavegen.output_file import check_writable, write_output
    from wavegen.runs.checkpoint import for_use, goes_to_onnx, load_checkpoint, save_checkpoint
    from wavegen.runs.run_folder import find_checkpoint
    from wavegen.sampling.onnx_step import onnx_step
    from wavegen.text import format_bytes

    path = Path(output)
    to_onnx = goes_to_onnx(path, precision)
    check_writable(path, overwrite, ending=path.suffix)
    checkpoint = load_checkpoint(find_checkpoint(Path(source)))
    if to_onnx:
        write_output(path, onnx_step(checkpoint.average, checkpoint.config))
    else:
        save_checkpoint(for_use(checkpoint, precision), path)
    print_notice(f"written: {output}, {format_bytes(path.stat().st_size)}, averaged weights in {precision}")
