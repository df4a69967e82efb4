"""What the host runs of a program: how much memory MNN takes for it, and that MNN must be there."""

from pathlib import Path

import pytest

from converter.progress import silent
from converter.sizes import Size
from passes import pipelines
from passes.cut_out_attention import GIVES, TAKES, CutOutAttentionPass
from targets.base import CompileJob, ToolchainError
from targets.tvm.host_operator import convert_part
from tests.passes.graphs import parse
