"""Errors of Outlive as answers: put `outlive.integrations.django.middleware.ErrorAnswers` in MIDDLEWARE."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.utils.deprecation import MiddlewareMixin

from outlive.integrations.http import STATUSES, answer_to

_ANSWERED = tuple(STATUSES)


class ErrorAnswers(MiddlewareMixin):
    """Answers for what a view lets pass, of any kind of view: a run that does not exist is a 404, and so on.

    Others are left to Django. With ATOMIC_REQUESTS the view's transaction has been rolled back by then.
    """

    def process_exception(self, _: HttpRequest, error: Exception) -> JsonResponse | None:
        """Give the answer to an error that is no fault of the service."""
        if not isinstance(error, _ANSWERED):
            return None
        body, status, headers = answer_to(error)
        return JsonResponse(body, status=status, headers=headers)
