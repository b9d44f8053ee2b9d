"""The slow flights with another step, as another team deploys them."""

from pyrmute_tasks import ModelData, ModelManager
from tests.chaos.slow_flights import example, give_times_slowly

manager = ModelManager()
manager.model("Flight", "1.0.0")(example("FlightV1"))
manager.model("Flight", "2.0.0")(example("FlightV2"))
manager.model("Flight", "3.0.0")(example("FlightV3"))
manager.migration("Flight", "1.0.0", "2.0.0")(give_times_slowly)


@manager.migration("Flight", "2.0.0", "3.0.0")
def split_in_miles(flight: ModelData) -> ModelData:
    """Convert to miles: if this ever ran for the job, every byte would be wrong."""
    return {**flight, "distance": -1}
