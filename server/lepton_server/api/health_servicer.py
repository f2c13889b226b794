"""`Health`: whether the coordinator does its work, in words and for load balancers (grpc.health.v1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from grpc_health.v1 import health_pb2

from lepton_core.views import HealthView
from lepton_protos import convert
from lepton_protos.v1 import identity_pb2 as pb
from lepton_server.api.guard import Call

#: How often `Watch` looks.
_WATCH_S = 1.0
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthService:
    """Lepton's own report."""

    service = pb.DESCRIPTOR.services_by_name["Health"]

    def __init__(self, report: Callable[[], HealthView]) -> None:
        self._report = report

    async def report(self, _request: pb.HealthRequest, _call: Call) -> pb.HealthView:
        """How the coordinator is."""
        view: pb.HealthView = convert.to_proto(self._report())
        return view


class StandardHealthService:
    """grpc.health.v1; every service is as healthy as the coordinator."""

    service = health_pb2.DESCRIPTOR.services_by_name["Health"]

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready

    async def check(self, _request: health_pb2.HealthCheckRequest, _call: Call) -> health_pb2.HealthCheckResponse:
        """Serving or not, now."""
        return health_pb2.HealthCheckResponse(status=self._status())

    async def watch(
        self, _request: health_pb2.HealthCheckRequest, _call: Call
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Serving or not, and every change of it."""
        told: int | None = None
        while True:
            status = self._status()
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            await asyncio.sleep(_WATCH_S)

    def _status(self) -> int:
        return int(_SERVING if self._is_ready() else _NOT_SERVING)
