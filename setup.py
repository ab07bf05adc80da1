# For pip before 19, such as Debian 10's, which knows no other way; everything is in setup.cfg.
from setuptools import setup

setup()
