"""A shop with Django: the order and the run that fulfils it are written by one transaction, and survive every kill.

python manage.py migrate --run-syncdb && python manage.py outlive_migrate
python manage.py runserver        # the web server: it starts runs
python manage.py outlive_worker   # executes them; as many as you like
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line(sys.argv)
