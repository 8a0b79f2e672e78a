"""Grants for MariaDB and Redis on real servers: what is issued works, is narrow, and is gone and proved gone."""

import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pymysql
import pytest
import yaml
from redis import RedisError

from controlplane.dev.configuration import layout_of
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.engines import engines, scope_models
from controlplane.engines.dialects import dialects
from controlplane.model.entitlement import Entitlement
from controlplane.model.secret import Secret
from controlplane.sync.compile import compiled
from controlplane.testing.mariadb import MANAGER, MariaDB
from controlplane.testing.redis import RedisServer
from controlplane.testing.served import ServedPlane, witness
from controlplane.vault.client import VaultClient
from controlplane.vault.prober import connections, prober_role
