"""Projects: what an administration's usage is for."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from metering.catalog.changes import hold_catalog
from metering.catalog.documents import Project
from metering.catalog.kinds import KINDS, load
from metering.errors import Conflict, NotFound, Unprocessable
from metering.tables import project

PROJECTS_MAX = 1_000
"""Projects of one administration, open or closed: one that is closed stays listed."""


def list_projects(connection: sa.Connection, tenant_id: str, *, after: str = "", limit: int = 100) -> list[Project]:
    """Projects after an id, in the order of ids."""
    query = sa.select(project.c.id).where(project.c.tenant == tenant_id, project.c.id > after)
    return _load(connection, tenant_id, project.c.id.in_(query.order_by(project.c.id).limit(limit)))


def add_project(connection: sa.Connection, added: Project) -> Project:
    """Open a project; the same again changes nothing.

    Raises: Conflict if the id has another name; Unprocessable for one too many.
    """
    hold_catalog(connection)
    others = sa.select(sa.func.count()).where(project.c.tenant == added.tenant, project.c.id != added.id)
    if (connection.scalar(others) or 0) >= PROJECTS_MAX:
        raise Unprocessable(
            "too_many_projects", "The administration has too many projects.", expected=f"at most {PROJECTS_MAX}"
        )
    values = {"tenant": added.tenant, "id": added.id, "name": added.name}
    connection.execute(insert(project).values(values).on_conflict_do_nothing())
    found = _find(connection, added.tenant, added.id)
    if found.name != added.name:
        raise Conflict("project_exists", "There is a project of this id with another name.", field="id")
    return found


def change_project(connection: sa.Connection, tenant_id: str, project_id: str, changes: Mapping[str, Any]) -> Project:
    """Change the name or status of a project. Raises: NotFound."""
    found = _find(connection, tenant_id, project_id)
    if not changes:
        return found
    one = (project.c.tenant == tenant_id, project.c.id == project_id)
    connection.execute(project.update().where(*one).values(dict(changes)))
    return _find(connection, tenant_id, project_id)


def _find(connection: sa.Connection, tenant_id: str, project_id: str) -> Project:
    found = _load(connection, tenant_id, project.c.id == project_id)
    if not found:
        raise NotFound("unknown_project", "There is no such project.", field="project")
    return found[0]


def _load(connection: sa.Connection, tenant_id: str, condition: sa.ColumnElement[bool]) -> list[Project]:
    found = load(connection, KINDS["projects"], project.c.tenant == tenant_id, condition)
    return [document for document in found.values() if isinstance(document, Project)]
