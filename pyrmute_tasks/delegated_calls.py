"""The calls of a `ModelManager` that pyrmute runs: differences, schemas, exports."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from pyrmute_tasks.delegation import PyrmuteMirror, errors_as_ours
from pyrmute_tasks.versions import ModelVersion, VersionLike

if TYPE_CHECKING:
    import pyrmute
    from pydantic.json_schema import GenerateJsonSchema
    from pyrmute.types import JsonSchemaGenerator, SchemaTransformer

__all__ = ["DelegatedCalls"]

TypeScriptStyle: TypeAlias = Literal["interface", "type", "zod"]
TypeScriptOrganization: TypeAlias = Literal["flat", "major_version", "model"]


# Above 250 lines: documentation and annotated arguments; each call passes them on.
class DelegatedCalls:
    """The calls of pyrmute's manager that do not migrate: differences, schemas, exports.

    All of them need the extra ``pyrmute``, and without it raise `MissingExtraError`. Their
    parameters, results and files are pyrmute's:
    https://pyrmute.readthedocs.io/reference/model-manager/

    Args:
        default_schema_config: The default configuration of schemas.
    """

    def __init__(self, default_schema_config: "pyrmute.SchemaConfig | None" = None) -> None:
        self._mirror = PyrmuteMirror(default_schema_config)

    def as_pyrmute(self) -> "pyrmute.ModelManager":
        """Return a manager of pyrmute's with the models, steps and transformers registered here.

        It is the same one each time, and knows what is registered here until it is returned.

        Returns:
            A manager of pyrmute with the same models and steps.

        Raises:
            MissingExtraError: If pyrmute is not installed.
        """
        return self._mirror.manager("ModelManager.as_pyrmute")

    def diff(
        self, name: str, from_version: VersionLike, to_version: VersionLike
    ) -> "pyrmute.ModelDiff":
        """Compare the fields of two versions of a model.

        Args:
            name: The model's name.
            from_version: The version to start from.
            to_version: The version to compare with.

        Returns:
            The differences.

        Raises:
            ModelNotFoundError: If the model or a version is not registered.
            MissingExtraError: If pyrmute is not installed.
        """
        pyrmutes = self._mirror.manager("ModelManager.diff")
        with errors_as_ours():
            return pyrmutes.diff(name, str(from_version), str(to_version))

    # --- JSON schemas ---------------------------------------------------------------------

    def get_schema(
        self,
        name: str,
        version: VersionLike,
        config: "pyrmute.SchemaConfig | None" = None,
        **kwargs: object,
    ) -> "pyrmute.JsonSchema":
        """Return the JSON schema of one version.

        Args:
            name: The model's name.
            version: Its version.
            config: Configuration that overrides the default one.
            kwargs: Further arguments of pydantic's ``model_json_schema``.

        Returns:
            The schema.

        Raises:
            ModelNotFoundError: If the model or the version is not registered.
            MissingExtraError: If pyrmute is not installed.
        """
        pyrmutes = self._mirror.manager("ModelManager.get_schema")
        with errors_as_ours():
            return pyrmutes.get_schema(name, str(version), config, **kwargs)

    def dump_schemas(
        self,
        output_dir: str | Path,
        indent: int = 2,
        separate_definitions: bool = False,
        ref_template: str | None = None,
        config: "pyrmute.SchemaConfig | None" = None,
    ) -> None:
        """Write the JSON schemas of all versions of all models, a file each.

        Args:
            output_dir: The directory to write to.
            indent: Spaces a level.
            separate_definitions: Refer to the files of models with ``enable_ref`` instead of
                including them.
            ref_template: Template of these references, with ``{model}`` and ``{version}``.
            config: Configuration that overrides the default one.

        Raises:
            MissingExtraError: If pyrmute is not installed.
        """
        pyrmutes = self._mirror.manager("ModelManager.dump_schemas")
        with errors_as_ours():
            pyrmutes.dump_schemas(output_dir, indent, separate_definitions, ref_template, config)

    def set_default_schema_generator(
        self, generator: "JsonSchemaGenerator | type[GenerateJsonSchema]"
    ) -> None:
        """Make all JSON schemas with a generator of your own.

        Args:
            generator: A function of a model, or a subclass of pydantic's ``GenerateJsonSchema``.
        """
        self._mirror.note("set_default_schema_generator", generator)

    def schema_transformer(
        self, name: str, version: VersionLike
    ) -> "Callable[[SchemaTransformer], SchemaTransformer]":
        """Return a decorator that registers a function to change a version's JSON schema.

        Args:
            name: The model's name.
            version: Its version.

        Returns:
            The decorator, which returns the function as it is.

        Raises:
            InvalidVersionError: If `version` cannot be parsed.
        """
        parsed = ModelVersion.of(version)

        def register(transformer: "SchemaTransformer") -> "SchemaTransformer":
            # Only noted: a worker that loads this module does without pyrmute.
            self._mirror.note("schema_transformer", name, str(parsed), decorated=transformer)
            return transformer

        return register

    def get_schema_transformers(self, name: str, version: VersionLike) -> "list[SchemaTransformer]":
        """Return the functions that change a version's JSON schema, in order.

        Args:
            name: The model's name.
            version: Its version.

        Returns:
            The functions, in the order of their calls.

        Raises:
            InvalidVersionError: If `version` cannot be parsed.
            MissingExtraError: If pyrmute is not installed.
        """
        pyrmutes = self._mirror.manager("ModelManager.get_schema_transformers")
        with errors_as_ours():
            return pyrmutes.get_schema_transformers(name, str(version))

    def clear_schema_transformers(
        self, name: str | None = None, version: VersionLike | None = None
    ) -> None:
        """Remove all functions that change JSON schemas.

        Args:
            name: Only those of this model.
            version: Only those of this version of it.

        Raises:
            InvalidVersionError: If `version` cannot be parsed.
        """
        parsed = None if version is None else str(ModelVersion.of(version))
        self._mirror.note("clear_schema_transformers", name, parsed)

    # --- Avro, Protobuf, TypeScript ---------------------------------------------------------

    def get_avro_schema(
        self,
        name: str,
        version: VersionLike,
        namespace: str | None = None,
        include_docs: bool = True,
        versioned_namespace: bool = False,
    ) -> "pyrmute.AvroRecordSchema":
        """Return the Avro schema of one version.

        Args:
            name: The model's name.
            version: Its version.
            namespace: The Avro namespace; None means ``com.example``.
            include_docs: Include the descriptions of fields.
            versioned_namespace: Include the version in the namespace.

        Returns:
            The schema.

        Raises:
            ModelNotFoundError: If the model or the version is not registered.
            MissingExtraError: If pyrmute is not installed.
        """
        pyrmutes = self._mirror.manager("ModelManager.get_avro_schema")
        with errors_as_ours():
            return pyrmutes.get_avro_schema(
                name, str(version), namespace, include_docs, versioned_namespace
            )

    def dump_avro_schemas(
        self,
        output_dir: str | Path,
        namespace: str | None = None,
        indent: int = 2,
        include_docs: bool = True,
        versioned_namespace: bool = False,
    ) -> "dict[str, dict[str, pyrmute.AvroRecordSchema]]":
        """Write the Avro schemas of all versions of all models, a file each.

        Args:
            output_dir: The directory to write to.
            namespace: The Avro namespace; None means ``com.example``.
            indent: Spaces a level.
            include_docs: Include the descriptions of fields.
            versioned_namespace: Include the version in the namespace.

        Returns:
            The schemas, by model and version.

        Raises:
            MissingExtraError: If pyrmute is not installed.
        """
        pyrmutes = self._mirror.manager("ModelManager.dump_avro_schemas")
        with errors_as_ours():
            return pyrmutes.dump_avro_schemas(
                output_dir, namespace, indent, include_docs, versioned_namespace
            )

    def get_proto_schema(
        self,
        name: str,
        version: VersionLike,
        package: str | None = None,
        include_docs: bool = True,
        use_proto3: bool = True,
    ) -> str:
        """Return the Protobuf file of one version.

        Args:
            name: The model's name.
            version: Its version.
            package: The Protobuf package; None means ``com.example``.
            include_docs: Include documentation as comments.
            use_proto3: Use the syntax of proto3 instead of proto2.

        Returns:
            The schema as text.

        Raises:
            ModelNotFoundError: If the model or the version is not registered.
            MissingExtraError: If pyrmute is not installed.
        """
        pyrmutes = self._mirror.manager("ModelManager.get_proto_schema")
        with errors_as_ours():
            return pyrmutes.get_proto_schema(name, str(version), package, include_docs, use_proto3)

    def dump_proto_schemas(
        self,
        output_dir: str | Path,
        package: str | None = None,
        include_docs: bool = True,
        use_proto3: bool = True,
    ) -> dict[str, dict[str, str]]:
        """Write the Protobuf files of all versions of all models.

        Args:
            output_dir: The directory to write to.
            package: The Protobuf package; None means ``com.example``.
            include_docs: Include documentation as comments.
            use_proto3: Use the syntax of proto3 instead of proto2.

        Returns:
            The files' texts, by model and version.

        Raises:
            MissingExtraError: If pyrmute is not installed.
        """
        pyrmutes = self._mirror.manager("ModelManager.dump_proto_schemas")
        with errors_as_ours():
            return pyrmutes.dump_proto_schemas(output_dir, package, include_docs, use_proto3)

    def get_typescript_schema(
        self,
        name: str,
        version: VersionLike,
        style: TypeScriptStyle = "interface",
        config: "pyrmute.TypeScriptConfig | None" = None,
    ) -> str:
        """Return the TypeScript of one version.

        Args:
            name: The model's name.
            version: Its version.
            style: An interface, a type, or a zod schema.
            config: How to write dates, enums and optional fields.

        Returns:
            The declarations as text.

        Raises:
            ModelNotFoundError: If the model or the version is not registered.
            MissingExtraError: If pyrmute is not installed.
        """
        pyrmutes = self._mirror.manager("ModelManager.get_typescript_schema")
        with errors_as_ours():
            return pyrmutes.get_typescript_schema(name, str(version), style, config)

    def dump_typescript_schemas(
        self,
        output_dir: str | Path,
        style: TypeScriptStyle = "interface",
        config: "pyrmute.TypeScriptConfig | None" = None,
        organization: TypeScriptOrganization = "flat",
        include_barrel_exports: bool = True,
    ) -> dict[str, dict[str, str]]:
        """Write the TypeScript of all versions of all models.

        Args:
            output_dir: The directory to write to.
            style: Interfaces, types, or zod schemas.
            config: How to write dates, enums and optional fields.
            organization: One folder, one for each major version, or one for each model.
            include_barrel_exports: Write an ``index.ts`` beside them.

        Returns:
            The files' texts, by model and version.

        Raises:
            MissingExtraError: If pyrmute is not installed.
        """
        pyrmutes = self._mirror.manager("ModelManager.dump_typescript_schemas")
        with errors_as_ours():
            return pyrmutes.dump_typescript_schemas(
                output_dir, style, config, organization, include_barrel_exports
            )
