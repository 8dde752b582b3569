"""Two pictures of one piece of tissue laid over each other: shift, then affine, then dense, once per raw pair."""

from restain.evaluation.registration.quality import Quality
from restain.evaluation.registration.register import register
from restain.evaluation.registration.result import Registration
from restain.evaluation.registration.settings import RegistrationSettings

__all__ = ["Quality", "Registration", "RegistrationSettings", "register"]
