//! The rows of the error table for changes of models, kinds, model associations and instances.

use super::error::{ErrorAnswer, answer_to as answer_to_request, cmdb};
use crate::domain::change_error::ChangeError;
use crate::domain::error::{End, RequestError};
use crate::domain::instance::InvalidName;

/// The row of the table for an error.
#[expect(clippy::too_many_lines, reason = "it is the table")]
pub(super) fn answer_to(error: &ChangeError) -> ErrorAnswer {
    use ChangeError as E;
    match error {
        E::NotAText(field) => cmdb(
            1_199_007,
            format!("'{field}' must be a string type"),
            format!("'{field}' 必须为字符串类型"),
        ),
        E::TooLong { field, limit } => cmdb(
            1_199_073,
            format!("{field} field exceeds maximum value {limit}"),
            format!("字段{field}超过最大值{limit}"),
        ),
        E::Invalid { field, .. } => answer_to_request(&RequestError::MissingField((*field).into())),
        E::Duplicate { shown, .. } => cmdb(
            1_199_014,
            format!("duplicated instances exist, fields [{shown}] duplicated"),
            format!("数据唯一性校验失败， {shown} 重复"),
        ),
        E::UnknownClassification { is_new_model: true } => {
            cmdb(1_101_024, "Query model classification failed", "查询模型分类失败")
        }
        E::UnknownClassification { is_new_model: false } => {
            cmdb(1_101_113, "model classification not found", "模型分组未找到")
        }
        E::UnknownModel => cmdb(1_101_106, "model not found", "模型未找到"),
        E::BuiltInModel => {
            cmdb(1_101_135, "Prohibition of deleting the built-in model", "禁止删除内置模型")
        }
        E::ModelHasInstances(model) => cmdb(
            1_101_037,
            format!("the object [{model}] has been instantiated and cannot be deleted"),
            format!("该模型 [{model}] 已被实例化，禁止删除"),
        ),
        E::ModelHasAssociations => {
            cmdb(1_101_053, "object has already been associated.", "模型已经被关联")
        }
        E::MainlineKind => cmdb(
            1_101_082,
            "bk_mainline association type can't use in this scene",
            "bk_mainline 为内置关联类型，不能用于当前场景",
        ),
        E::MissingParameters => {
            cmdb(1_101_045, "object association missing parameters.", "模型关联关系缺少相关参数")
        }
        E::SameAssociation { source_model, target_model } => cmdb(
            1_101_038,
            format!("the associations {source_model}->{target_model} already exist"),
            format!("关联关系 {source_model}->{target_model} 重复"),
        ),
        E::NotAssociable(End::Source, model) => cmdb(
            1_101_120,
            format!("Model {model} forbids the creation of association relationships"),
            format!("模型{model}禁止创建的关联关系"),
        ),
        E::NotAssociable(End::Target, model) => cmdb(
            1_101_121,
            format!(
                "The associated model {model} forbids the creation of association relationships"
            ),
            format!("被关联模型{model}禁止创建关联关系"),
        ),
        E::FixedFields => {
            cmdb(1_101_047, "updated the forbidden fields.", "包含了不允许更新的字段")
        }
        E::PredefinedAssociation { is_deletion: false } => {
            cmdb(1_101_054, "can not update a predefined association.", "禁止更新预定义的关联关系")
        }
        E::PredefinedAssociation { is_deletion: true } => {
            cmdb(1_101_055, "can not delete a predefined association.", "禁止删除预定义的关联关系")
        }
        E::InvalidAssociationId => cmdb(
            1_101_041,
            "invalid object association id, should be a int64 value",
            "无效的关联关系ID，应该为正整数",
        ),
        E::AssociationHasLinks => cmdb(
            1_101_043,
            "object association has already been instantiated, can not be deleted.",
            "模型的关联关系已经被实例化，不能被删除",
        ),
        E::PredefinedKind => cmdb(
            1_101_051,
            "can not delete a pre-defined association kind.",
            "预置的关联类型不能被删除",
        ),
        E::BuiltInInstance => cmdb(
            1_199_084,
            "forbidden operate inner model instance with common instance API",
            "禁止使用通用实例接口操作内置模型实例",
        ),
        E::PausedModel => cmdb(1_101_084, "the model stopped to use", "模型已经停用"),
        E::UnknownInstance => cmdb(1_199_019, "No relevant data found", "未找到相关数据"),
        E::InvalidInstanceName(InvalidName::NotAddresses) => cmdb(
            1_199_011,
            "''内网IPv4' Field regular check failed' the parameter is invalid or does not exist",
            "''内网IPv4' 字段正则校验失败' 参数无效或不存在",
        ),
        E::InvalidInstanceName(InvalidName::NotIpv6Addresses) => cmdb(
            1_199_011,
            "''内网IPv6' Field regular check failed' the parameter is invalid or does not exist",
            "''内网IPv6' 字段正则校验失败' 参数无效或不存在",
        ),
        E::InvalidInstanceName(why) => {
            let (english, chinese) = match why {
                InvalidName::Empty => (" unassigned", " 未赋值"),
                InvalidName::NotAText => (" must be a string type", " 必须为字符串类型"),
                InvalidName::TooLong
                | InvalidName::NotAddresses
                | InvalidName::NotIpv6Addresses => (" data out of bounds", " 数据越界"),
            };
            cmdb(
                1_199_011,
                format!("''Instance Name'{english}' the parameter is invalid or does not exist"),
                format!("''实例名'{chinese}' 参数无效或不存在"),
            )
        }
        E::UnknownCloudArea { index, address } => cmdb(
            1_110_004,
            format!("{index} line {address} new failed bk-network area does not exist"),
            format!("{index}行{address}新加失败管控区域不存在"),
        ),
        E::HostsRefused => cmdb(1_110_004, "Failed to create host", "创建主机失败"),
        E::LinkedInstance => cmdb(1_101_075, "the inst has association", "实例下有关联关系"),
        E::KindIsUsed => {
            cmdb(1_101_060, "association kind has already been used.", "关联类型已经被使用")
        }
    }
}
