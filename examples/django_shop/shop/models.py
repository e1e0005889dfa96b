from django.db import models


class Order(models.Model):
    name = models.CharField(max_length=100, primary_key=True)
    cents = models.IntegerField()
    is_sent = models.BooleanField(default=False)
