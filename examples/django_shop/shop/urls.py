from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from outlive.integrations.django import get_app, start
from shop.models import Order
from shop.workflows import fulfil


def order(request: HttpRequest, name: str) -> HttpResponse:
    if request.method == "GET":
        return HttpResponse(get_app().get(f"order-{name}").status())
    cents = int(request.GET["cents"])
    with transaction.atomic():  # both or neither
        Order.objects.create(name=name, cents=cents)
        run = start(fulfil, name, cents, id=f"order-{name}")
    return HttpResponse(run.id, status=201)


def address(request: HttpRequest, name: str) -> HttpResponse:
    get_app().send(f"order-{name}", "address", request.GET["street"], key="address")
    return HttpResponse(status=204)


def log(_: HttpRequest, name: str) -> StreamingHttpResponse:
    items = get_app().get(f"order-{name}").stream("log")
    return StreamingHttpResponse((f"{item.value}\n" for item in items), content_type="text/plain")


urlpatterns = [path("orders/<name>", order), path("orders/<name>/address", address), path("orders/<name>/log", log)]
