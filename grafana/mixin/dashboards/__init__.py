"""The dashboards, one a file: the questions of somebody on call, worst first."""

from __future__ import annotations

from . import graphql, overview, protocol, workers

BOARDS = (overview.BOARD, workers.BOARD, graphql.BOARD, protocol.BOARD)
